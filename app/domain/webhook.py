"""Webhooks by Standard Webhooks: who is told of what, and what has become of each telling."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from app.domain.errors import InvalidField

EventType = Literal["job.succeeded", "job.failed", "verdict.issued"]
DeliveryState = Literal["pending", "delivered", "failed"]

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
DELIVERY_STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)
MAX_ENDPOINTS = 20  # of a tenant, because each of its events is sent to all of them
MAX_BODY_BYTES = 20_000  # exclusive: what Standard Webhooks asks senders to stay under
MAX_DESCRIPTION_CHARS = 200
MAX_LOGGED = 20  # attempts: a whole schedule, and another after a redelivery
MAX_SECRETS = 3  # that sign at once
ROTATED = timedelta(hours=24)  # for which a secret goes on signing beside its successor


@dataclass(frozen=True)
class Secret:
    text: str = field(repr=False)  # whsec_ and base64, as its owner has it
    created_at: datetime
    expires_at: datetime | None = None  # set when another takes its place

    def is_live(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True)
class Endpoint:
    """Where a tenant wants to be called."""

    id: str
    url: str
    events: tuple[EventType, ...]
    secrets: tuple[Secret, ...]  # newest first
    created_at: datetime
    description: str = ""
    disabled_at: datetime | None = None
    disabled_reason: str | None = None

    def signing(self, now: datetime) -> list[str]:
        """The secrets that sign now, newest first."""
        return [secret.text for secret in self.secrets if secret.is_live(now)]


@dataclass(frozen=True)
class Outcome:
    """What came of one request."""

    status: int | None = None  # of the answer, where one came
    error: str | None = None  # why none came
    response: str = ""  # the first bytes of its body
    retry_after: str | None = None  # the header, as it came


@dataclass(frozen=True)
class Attempt:
    """One request, as the log keeps it."""

    at: datetime
    duration_ms: int
    status: int | None
    error: str | None
    response: str


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one endpoint."""

    id: str
    endpoint: str
    event_type: EventType
    event: str  # its id, the webhook-id: the same for every endpoint and attempt
    state: DeliveryState
    attempts: int  # ever
    due_at: datetime
    created_at: datetime
    ended_at: datetime | None
    body: str
    log: tuple[Attempt, ...] = ()  # oldest first, the last MAX_LOGGED


@dataclass(frozen=True)
class Due:
    """A delivery that its sender has leased, with all that the request needs."""

    id: str
    lease: str
    tenant: str
    endpoint: Endpoint
    event: str
    body: str
    tried: int  # attempts on the schedule before this one


def event_body(
    event_type: EventType, data: Mapping[str, object], now: datetime, *, most: int = MAX_BODY_BYTES
) -> str:
    """An event as it is sent, ASCII. Raises ValueError where it is not under `most` bytes."""
    stamp = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = json.dumps({"type": event_type, "timestamp": stamp, "data": data}, separators=(",", ":"))
    if len(body) >= most:
        raise ValueError(f"a {event_type} of {len(body)} bytes: a body must be under {most}")
    return body


def check_events(events: Sequence[str]) -> tuple[EventType, ...]:
    """In the order of `EVENT_TYPES`, each once. Raises InvalidField."""
    if not events or any(event not in EVENT_TYPES for event in events):
        raise InvalidField(field="events", reason=f"one or several of {', '.join(EVENT_TYPES)}")
    return tuple(event for event in EVENT_TYPES if event in events)


def check_description(text: str) -> str:
    """Raises InvalidField."""
    if len(text) > MAX_DESCRIPTION_CHARS or not (text.isprintable() or not text):
        reason = f"at most {MAX_DESCRIPTION_CHARS} printable characters"
        raise InvalidField(field="description", reason=reason)
    return text
