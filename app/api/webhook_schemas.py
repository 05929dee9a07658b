"""Webhooks over the wire. A secret is in the answers that make one, and in no other."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas import RequestBody
from app.domain.callback import MAX_URL_CHARS
from app.domain.webhook import (
    EVENT_TYPES,
    MAX_DESCRIPTION_CHARS,
    Attempt,
    Delivery,
    DeliveryState,
    Endpoint,
    EventType,
    Secret,
)


class WebhookIn(RequestBody):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"url": "https://hooks.example.com/safety", "events": ["job.succeeded"]}]
        },
    )

    url: str = Field(
        description="https, to a public address; no redirects are followed",
        max_length=MAX_URL_CHARS,
    )
    events: list[EventType] = Field(min_length=1, max_length=len(EVENT_TYPES))
    description: str = Field(default="", max_length=MAX_DESCRIPTION_CHARS)


class SecretOut(BaseModel):
    """When it came, not what it is."""

    created_at: datetime
    expires_at: datetime | None = Field(description="when it signs no more, null for the newest")

    @classmethod
    def of(cls, secret: Secret) -> "SecretOut":
        return cls(created_at=secret.created_at, expires_at=secret.expires_at)


class WebhookOut(BaseModel):
    id: str
    url: str
    events: list[EventType]
    description: str
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    secrets: list[SecretOut] = Field(description="newest first")
    links: dict[str, str]

    @classmethod
    def of(cls, endpoint: Endpoint, **more: Any) -> "WebhookOut":
        return cls(
            id=endpoint.id,
            url=endpoint.url,
            events=list(endpoint.events),
            description=endpoint.description,
            created_at=endpoint.created_at,
            disabled_at=endpoint.disabled_at,
            disabled_reason=endpoint.disabled_reason,
            secrets=[SecretOut.of(secret) for secret in endpoint.secrets],
            links={
                "self": webhook_path(endpoint.id),
                "deliveries": f"{webhook_path(endpoint.id)}/deliveries",
            },
            **more,
        )


class NewSecretOut(WebhookOut):
    secret: str = Field(description="whsec_ and base64; shown in this answer alone")

    @classmethod
    def of(cls, endpoint: Endpoint, **more: Any) -> "NewSecretOut":
        shown = WebhookOut.of(endpoint).model_dump()
        return cls(**shown, secret=endpoint.secrets[0].text, **more)


class WebhookPage(BaseModel):
    items: list[WebhookOut]
    next_cursor: str | None


class AttemptOut(BaseModel):
    at: datetime
    duration_ms: int
    status: int | None = Field(description="of the answer, null where none came")
    error: str | None = Field(description="why none came")
    response: str = Field(description="the first bytes of the answer's body")

    @classmethod
    def of(cls, attempt: Attempt) -> "AttemptOut":
        return cls(**vars(attempt))


class DeliverySummaryOut(BaseModel):
    id: str
    webhook: str
    event: str = Field(description="the webhook-id, the same in every attempt")
    event_type: EventType
    state: DeliveryState
    attempts: int
    due_at: datetime | None = Field(description="of the next attempt, null when it has ended")
    created_at: datetime
    ended_at: datetime | None
    links: dict[str, str]

    @classmethod
    def of(cls, delivery: Delivery, **more: Any) -> "DeliverySummaryOut":
        own = delivery_path(delivery.id)
        return cls(
            id=delivery.id,
            webhook=delivery.endpoint,
            event=delivery.event,
            event_type=delivery.event_type,
            state=delivery.state,
            attempts=delivery.attempts,
            due_at=delivery.due_at if delivery.state == "pending" else None,
            created_at=delivery.created_at,
            ended_at=delivery.ended_at,
            links={"self": own, "webhook": webhook_path(delivery.endpoint)},
            **more,
        )


class DeliveryOut(DeliverySummaryOut):
    body: str = Field(description="the very text that is signed and sent")
    log: list[AttemptOut] = Field(description="the last attempts, oldest first")

    @classmethod
    def of(cls, delivery: Delivery, **more: Any) -> "DeliveryOut":
        shown = DeliverySummaryOut.of(delivery).model_dump()
        log = [AttemptOut.of(attempt) for attempt in delivery.log]
        return cls(**shown, body=delivery.body, log=log, **more)


class DeliveryPage(BaseModel):
    items: list[DeliverySummaryOut]
    next_cursor: str | None


def webhook_path(endpoint_id: str) -> str:
    return f"/v1/webhooks/{endpoint_id}"


def delivery_path(delivery_id: str) -> str:
    return f"/v1/deliveries/{delivery_id}"
