"""Make and change webhooks."""

import uuid
from collections.abc import Sequence

from app.domain.callback import CallbackRules, check_url
from app.domain.signing import new_secret
from app.domain.webhook import MAX_ENDPOINTS, Endpoint, Secret, check_description, check_events
from app.jobs.webhook_ports import Webhooks


def register(
    url: str,
    events: Sequence[str],
    description: str,
    *,
    rules: CallbackRules,
    webhooks: Webhooks,
) -> Endpoint:
    """An endpoint with a secret of its own, which is shown now and never again.

    Raises InvalidField, TooManyWebhooks.
    """
    now = webhooks.now()
    endpoint = Endpoint(
        id=uuid.uuid4().hex,
        url=check_url(url, rules),
        events=check_events(events),
        secrets=(Secret(new_secret(), now),),
        created_at=now,
        description=check_description(description),
    )
    return webhooks.add(endpoint, most=MAX_ENDPOINTS)


def rotate(endpoint_id: str, *, webhooks: Webhooks) -> Endpoint:
    """A new secret; the one before it goes on signing beside it for a day. Raises
    WebhookNotFound."""
    return webhooks.rotate(endpoint_id, new_secret())
