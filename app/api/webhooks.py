"""/v1/webhooks and /v1/deliveries

All of it needs the scope `admin`: an endpoint is told of every job of its tenant, so who may make
one may read them all; and an endpoint's address is often a secret itself (whoever knows it may post
there), as is what its server answers.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.api.access import AdminServices
from app.api.webhook_schemas import (
    DeliveryOut,
    DeliveryPage,
    DeliverySummaryOut,
    NewSecretOut,
    WebhookIn,
    WebhookOut,
    WebhookPage,
    webhook_path,
)
from app.domain.webhook import DeliveryState
from app.jobs import webhooks

router = APIRouter(prefix="/v1", tags=["webhooks"])


@router.post("/webhooks", status_code=201)
def create_webhook(body: WebhookIn, services: AdminServices, response: Response) -> NewSecretOut:
    """Be told of events. The secret is in this answer alone."""
    made = webhooks.register(
        body.url,
        body.events,
        body.description,
        rules=services.callbacks,
        webhooks=services.webhooks,
    )
    response.headers["Location"] = webhook_path(made.id)
    return NewSecretOut.of(made)


@router.get("/webhooks")
def list_webhooks(
    services: AdminServices,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> WebhookPage:
    """Webhooks, newest first."""
    page = services.webhooks.endpoints(limit=limit, cursor=cursor)
    return WebhookPage(items=[WebhookOut.of(each) for each in page.items], next_cursor=page.cursor)


@router.get("/webhooks/{webhook_id}")
def show_webhook(webhook_id: str, services: AdminServices) -> WebhookOut:
    """One webhook."""
    return WebhookOut.of(services.webhooks.endpoint(webhook_id))


@router.delete("/webhooks/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: str, services: AdminServices) -> None:
    """Be told no more. Its deliveries go with it, those on their way too."""
    services.webhooks.remove(webhook_id)


@router.post("/webhooks/{webhook_id}/rotate")
def rotate_secret(webhook_id: str, services: AdminServices) -> NewSecretOut:
    """Make a new secret, in this answer alone. The one before it signs beside it for 24 hours."""
    return NewSecretOut.of(webhooks.rotate(webhook_id, webhooks=services.webhooks))


@router.post("/webhooks/{webhook_id}/enable")
def enable_webhook(webhook_id: str, services: AdminServices) -> WebhookOut:
    """Be told again, after the receiver had answered 410. What failed then is not sent again."""
    return WebhookOut.of(services.webhooks.enable(webhook_id))


@router.get("/webhooks/{webhook_id}/deliveries")
def list_deliveries(
    webhook_id: str,
    services: AdminServices,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> DeliveryPage:
    """What was sent, or is to be; newest first."""
    page = services.webhooks.deliveries(webhook_id, state=state, limit=limit, cursor=cursor)
    items = [DeliverySummaryOut.of(each) for each in page.items]
    return DeliveryPage(items=items, next_cursor=page.cursor)


@router.get("/deliveries/{delivery_id}")
def show_delivery(delivery_id: str, services: AdminServices) -> DeliveryOut:
    """One delivery, with its body and its attempts."""
    return DeliveryOut.of(services.webhooks.delivery(delivery_id))


@router.post("/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(delivery_id: str, services: AdminServices) -> DeliveryOut:
    """Send it again, under the same webhook-id, and if need be on the whole schedule."""
    return DeliveryOut.of(services.webhooks.redeliver(delivery_id))
