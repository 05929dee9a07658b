"""Webhooks as rows, and back."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from app.domain.webhook import Attempt, Delivery, Due, Endpoint, Secret

Json = dict[str, Any]


def endpoint_values(endpoint: Endpoint, tenant: str) -> Json:
    """The columns of an endpoint, `seq` aside."""
    return {
        **vars(endpoint),
        "tenant": tenant,
        "events": list(endpoint.events),
        "secrets": secrets_json(endpoint.secrets),
    }


def secrets_json(secrets: tuple[Secret, ...]) -> list[Json]:
    return [
        {
            "text": secret.text,
            "created_at": secret.created_at.isoformat(),
            "expires_at": None if secret.expires_at is None else secret.expires_at.isoformat(),
        }
        for secret in secrets
    ]


def to_endpoint(row: Row[Any]) -> Endpoint:
    """The endpoint in a row of `webhook_endpoints`."""
    return Endpoint(
        id=row.id,
        url=row.url,
        events=tuple(row.events),
        secrets=tuple(_to_secret(value) for value in row.secrets),
        created_at=row.created_at,
        description=row.description,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
    )


def _to_secret(value: Json) -> Secret:
    expires_at = value["expires_at"]
    return Secret(
        text=value["text"],
        created_at=datetime.fromisoformat(value["created_at"]),
        expires_at=None if expires_at is None else datetime.fromisoformat(expires_at),
    )


def attempt_json(attempt: Attempt) -> Json:
    return {**vars(attempt), "at": attempt.at.isoformat()}


def to_delivery(row: Row[Any]) -> Delivery:
    """The delivery in a row of `webhook_deliveries`; a listing's rows have no body and no log."""
    log = row._mapping.get("log", ())
    return Delivery(
        id=row.id,
        endpoint=row.endpoint,
        event_type=row.event_type,
        event=row.event,
        state=row.state,
        attempts=row.attempts,
        due_at=row.due_at,
        created_at=row.created_at,
        ended_at=row.ended_at,
        body=row._mapping.get("body", ""),
        log=tuple(Attempt(**{**kept, "at": datetime.fromisoformat(kept["at"])}) for kept in log),
    )


def to_due(row: Row[Any], endpoint: Endpoint) -> Due:
    """A delivery that was just leased."""
    return Due(
        id=row.id,
        lease=row.lease,
        tenant=row.tenant,
        endpoint=endpoint,
        event=row.event,
        body=row.body,
        tried=max(row.tried - 1, 0),  # because its lease counted this attempt
    )
