"""Webhooks in the records' database."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from app.domain.access import DEFAULT_TENANT
from app.domain.retry import Step
from app.domain.room import Room
from app.domain.webhook import (
    MAX_SECRETS,
    ROTATED,
    Attempt,
    Delivery,
    DeliveryState,
    Due,
    Endpoint,
    Secret,
)
from app.domain.webhook_errors import (
    DeliveryNotFound,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookNotFound,
)
from app.jobs.ports import Page
from app.storage import deliveries, expiry
from app.storage.database import Database, utc_now
from app.storage.pages import read_page
from app.storage.quotas import one_at_a_time
from app.storage.tables import webhook_deliveries, webhook_endpoints
from app.storage.webhook_rows import endpoint_values, secrets_json, to_delivery, to_endpoint

Clock = Callable[[Connection], datetime]
LISTED = [c for c in webhook_deliveries.c if c.name not in ("body", "log")]


class SqlWebhooks:
    """`Webhooks` of `app.jobs.webhook_ports`. Each method is one transaction."""

    def __init__(
        self, url: str | Database, tenant: str = DEFAULT_TENANT, *, clock: Clock = utc_now
    ) -> None:
        self._database = Database(url) if isinstance(url, str) else url
        self._tenant = tenant
        self._clock = clock

    def of(self, tenant: str) -> "SqlWebhooks":
        """The same database, another tenant's."""
        return SqlWebhooks(self._database, tenant, clock=self._clock)

    def close(self) -> None:
        """Close this process's connections."""
        self._database.close()

    def now(self) -> datetime:
        """By the clock that due times go by. Raises Unavailable."""
        with self._database.read() as connection:
            return self._clock(connection)

    # ------------------------------------------------------------------------------- endpoints
    def add(self, endpoint: Endpoint, *, most: int) -> Endpoint:
        """Keep an endpoint. Raises TooManyWebhooks where the tenant has `most`."""
        mine = webhook_endpoints.c.tenant == self._tenant
        with self._database.write() as connection:
            one_at_a_time(connection, self._tenant)
            if connection.execute(select(func.count()).where(mine)).scalar_one() >= most:
                raise TooManyWebhooks(limit=most)
            values = endpoint_values(endpoint, self._tenant)
            connection.execute(webhook_endpoints.insert().values(values))
        return endpoint

    def endpoint(self, endpoint_id: str) -> Endpoint:
        """Raises WebhookNotFound."""
        with self._database.read() as connection:
            return to_endpoint(self._find(connection, endpoint_id))

    def endpoints(self, *, limit: int, cursor: str | None) -> Page[Endpoint]:
        """Newest first. Raises InvalidField(field="cursor")."""
        mine = [webhook_endpoints.c.tenant == self._tenant]
        with self._database.read() as connection:
            return read_page(
                connection, webhook_endpoints, to_endpoint, where=mine, limit=limit, cursor=cursor
            )

    def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint and its deliveries. Raises WebhookNotFound."""
        _check_id(endpoint_id)
        with self._database.write() as connection:
            deliveries.remove(connection, self._tenant, endpoint_id)

    def rotate(self, endpoint_id: str, text: str) -> Endpoint:
        """Sign by a new secret; those before it go on for `ROTATED`. Raises WebhookNotFound."""
        with self._database.write() as connection:
            now = self._clock(connection)
            found = to_endpoint(self._find(connection, endpoint_id, for_update=True))
            old = [replace(s, expires_at=s.expires_at or now + ROTATED) for s in found.secrets]
            live = [secret for secret in old if secret.is_live(now)]
            secrets = (Secret(text, now), *live)[:MAX_SECRETS]
            return self._change(connection, endpoint_id, secrets=secrets_json(secrets))

    def enable(self, endpoint_id: str) -> Endpoint:
        """Call it again. Raises WebhookNotFound."""
        with self._database.write() as connection:
            self._find(connection, endpoint_id, for_update=True)
            return self._change(connection, endpoint_id, disabled_at=None, disabled_reason=None)

    # ------------------------------------------------------------------------------ deliveries
    def deliveries(
        self, endpoint_id: str, *, state: DeliveryState | None, limit: int, cursor: str | None
    ) -> Page[Delivery]:
        """Newest first, without bodies and logs.

        Raises WebhookNotFound, InvalidField(field="cursor").
        """
        table = webhook_deliveries
        where = [table.c.endpoint == endpoint_id]
        if state is not None:
            where.append(table.c.state == state)
        with self._database.read() as connection:
            self._find(connection, endpoint_id)
            return read_page(
                connection,
                table,
                to_delivery,
                columns=LISTED,
                where=where,
                limit=limit,
                cursor=cursor,
            )

    def delivery(self, delivery_id: str) -> Delivery:
        """Raises DeliveryNotFound."""
        with self._database.read() as connection:
            return to_delivery(self._find_delivery(connection, delivery_id))

    def redeliver(self, delivery_id: str) -> Delivery:
        """Due now, with the whole schedule before it; the lease of a sender that is at it stays.

        Raises DeliveryNotFound, WebhookDisabled.
        """
        with self._database.write() as connection:
            found = self._find_delivery(connection, delivery_id)
            endpoint = self._find(connection, found.endpoint, for_update=True)
            if endpoint.disabled_at is not None:
                raise WebhookDisabled(webhook=endpoint.id)
            again = (
                update(webhook_deliveries)
                .where(webhook_deliveries.c.id == delivery_id)
                .values(state="pending", due_at=self._clock(connection), tried=0, ended_at=None)
            )
            row = connection.execute(again.returning(*webhook_deliveries.c)).one_or_none()
        if row is None:
            raise DeliveryNotFound(delivery=delivery_id)
        return to_delivery(row)

    # --------------------------------------------------------------------------------- sending
    def claim_due(self, *, lease_s: float, room: Room) -> list[Due]:
        """Lease what is due and there is room for; see `Webhooks`. Raises Unavailable."""
        with self._database.read() as connection:
            if not deliveries.any_due(connection, self._clock(connection), room):
                return []
        with self._database.write() as connection:
            now = self._clock(connection)
            return deliveries.claim_due(connection, now, lease_s=lease_s, room=room.copy())

    def note_attempt(self, due: Due, attempt: Attempt, step: Step) -> bool:
        """Keep what came of an attempt. False where the lease was lost. Raises Unavailable."""
        with self._database.write() as connection:
            now = self._clock(connection)
            return deliveries.note_attempt(connection, due, attempt, step, now)

    def release(self, due: Due) -> None:
        """Give a delivery back, the attempt not counted. Raises Unavailable."""
        with self._database.write() as connection:
            deliveries.release(connection, due)

    def expire(self, kept: timedelta, *, dry_run: bool) -> int:
        """Forget what ended longer ago than `kept`, of all tenants. Raises Unavailable."""
        return expiry.in_rounds(self._database, expiry.expire_deliveries, kept, dry_run=dry_run)

    # ------------------------------------------------------------------------------------ rows
    def _find(self, connection: Connection, endpoint_id: str, *, for_update: bool = False) -> Any:
        _check_id(endpoint_id)
        columns = webhook_endpoints.c
        query = select(webhook_endpoints).where(
            columns.id == endpoint_id, columns.tenant == self._tenant
        )
        row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
        if row is None:
            raise WebhookNotFound(webhook=endpoint_id)
        return row

    def _change(self, connection: Connection, endpoint_id: str, **values: Any) -> Endpoint:
        changed = update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id)
        returned = changed.values(**values).returning(*webhook_endpoints.c)
        return to_endpoint(connection.execute(returned).one())

    def _find_delivery(self, connection: Connection, delivery_id: str) -> Row[Any]:
        if not _may_be_id(delivery_id):
            raise DeliveryNotFound(delivery=delivery_id)
        columns = webhook_deliveries.c
        mine = (columns.id == delivery_id, columns.tenant == self._tenant)
        row = connection.execute(select(webhook_deliveries).where(*mine)).one_or_none()
        if row is None:
            raise DeliveryNotFound(delivery=delivery_id)
        return row


def _check_id(endpoint_id: str) -> None:
    if not _may_be_id(endpoint_id):
        raise WebhookNotFound(webhook=endpoint_id)


def _may_be_id(value: str) -> bool:
    """Our ids are printable ASCII; PostgreSQL refuses some of the rest."""
    return value.isascii() and value.isprintable()
