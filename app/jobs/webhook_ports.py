"""What webhooks need from outside, as Protocols; `app.storage` has the real ones."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

from app.domain.retry import Step
from app.domain.room import Room
from app.domain.webhook import Attempt, Delivery, DeliveryState, Due, Endpoint, Outcome
from app.jobs.ports import Page


class Webhooks(Protocol):
    """Endpoints and deliveries, of one tenant; `claim_due` to `expire` are for all."""

    def of(self, tenant: str) -> "Webhooks":
        """The same database, another tenant's."""

    def now(self) -> datetime:
        """By the clock that due times go by. Raises Unavailable."""

    def add(self, endpoint: Endpoint, *, most: int) -> Endpoint:
        """Keep an endpoint. Raises TooManyWebhooks where the tenant has `most`."""

    def endpoint(self, endpoint_id: str) -> Endpoint:
        """Raises WebhookNotFound."""

    def endpoints(self, *, limit: int, cursor: str | None) -> Page[Endpoint]:
        """Newest first. Raises InvalidField(field="cursor")."""

    def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint and its deliveries. Raises WebhookNotFound."""

    def rotate(self, endpoint_id: str, text: str) -> Endpoint:
        """Sign by a new secret; those before it go on for a while. Raises WebhookNotFound."""

    def enable(self, endpoint_id: str) -> Endpoint:
        """Call it again. Raises WebhookNotFound."""

    def deliveries(
        self, endpoint_id: str, *, state: DeliveryState | None, limit: int, cursor: str | None
    ) -> Page[Delivery]:
        """Of one endpoint, newest first, without bodies and logs.

        Raises WebhookNotFound, InvalidField(field="cursor").
        """

    def delivery(self, delivery_id: str) -> Delivery:
        """Raises DeliveryNotFound."""

    def redeliver(self, delivery_id: str) -> Delivery:
        """Due now, with the whole schedule before it; one under way is not sent beside itself.

        Raises DeliveryNotFound, WebhookDisabled.
        """

    def claim_due(self, *, lease_s: float, room: Room) -> list[Due]:
        """Lease what is due and there is room for, the longest due first; each is given to one
        sender only, until its lease has run out. It counts as an attempt. Raises Unavailable."""

    def note_attempt(self, due: Due, attempt: Attempt, step: Step) -> bool:
        """Keep what an attempt came to, and disable the endpoint where the step says so, whose
        other deliveries fail with it. False where the lease was lost. Raises Unavailable."""

    def release(self, due: Due) -> None:
        """Give a delivery back: due as before, the attempt not counted. Raises Unavailable."""

    def expire(self, kept: timedelta, *, dry_run: bool) -> int:
        """Forget deliveries that ended longer ago than `kept`; how many. Raises Unavailable."""


class Poster(Protocol):
    """Calls endpoints."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """One request. It never raises for what a receiver, a name or a network does."""

    async def settled(self, url: str) -> None:
        """Wait for what requests to this host have left behind: a name that is looked up still."""
