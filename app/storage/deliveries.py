"""How a delivery moves. Who needs both locks the endpoint before its deliveries."""

import uuid
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, delete, exists, or_, select, update

from app.domain.retry import Step
from app.domain.room import Room
from app.domain.webhook import MAX_LOGGED, Attempt, Due
from app.domain.webhook_errors import WebhookNotFound
from app.storage.tables import webhook_deliveries, webhook_endpoints
from app.storage.webhook_rows import attempt_json, to_due, to_endpoint

LOOKED_AT = 100  # candidates at once
COLUMNS = webhook_deliveries.c


def any_due(connection: Connection, now: datetime, room: Room) -> bool:
    """Asked first, because SQLite's one writer should not be held up for nothing."""
    return bool(connection.scalar(select(exists().where(_is_due(now), *_has_room(room)))))


def claim_due(connection: Connection, now: datetime, *, lease_s: float, room: Room) -> list[Due]:
    """See `Webhooks.claim_due`."""
    chosen = _choose(connection, now, room)
    if not chosen:
        return []
    leased = (
        update(webhook_deliveries)
        .where(COLUMNS.seq.in_(chosen), _is_due(now))
        .values(
            lease=uuid.uuid4().hex,
            lease_until=now + timedelta(seconds=lease_s),
            attempts=COLUMNS.attempts + 1,
            tried=COLUMNS.tried + 1,
        )
    )
    rows = connection.execute(leased.returning(*COLUMNS)).all()
    named = webhook_endpoints.c.id.in_({row.endpoint for row in rows})
    found = connection.execute(select(webhook_endpoints).where(named)).all()
    endpoints = {row.id: to_endpoint(row) for row in found}
    return [to_due(row, endpoints[row.endpoint]) for row in sorted(rows, key=lambda row: row.seq)]


def _choose(connection: Connection, now: datetime, room: Room) -> list[int]:
    """The `seq`s of those that there is room for. Whoever is full is left out of the next look, so
    that a long queue of one does not hide the others'."""
    chosen: list[int] = []
    while room.free > 0:
        candidates = (
            select(COLUMNS.seq, COLUMNS.tenant, COLUMNS.endpoint)
            .where(
                _is_due(now),
                COLUMNS.seq.not_in(chosen),
                *_has_room(room),
            )
            .order_by(COLUMNS.due_at, COLUMNS.seq)
            .limit(LOOKED_AT)
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(candidates).all()
        chosen += [row.seq for row in rows if room.take(row.tenant, row.endpoint)]
        if len(rows) < LOOKED_AT:
            break
    return chosen


def _is_due(now: datetime) -> ColumnElement[bool]:
    is_free = or_(COLUMNS.lease_until.is_(None), COLUMNS.lease_until <= now)
    return and_(COLUMNS.state == "pending", COLUMNS.due_at <= now, is_free)


def _has_room(room: Room) -> tuple[ColumnElement[bool], ...]:
    return (
        COLUMNS.endpoint.not_in(room.full_endpoints),
        COLUMNS.tenant.not_in(room.full_tenants),
    )


def note_attempt(
    connection: Connection, due: Due, attempt: Attempt, step: Step, now: datetime
) -> bool:
    """See `Webhooks.note_attempt`."""
    if step.disables is not None and not _lock(connection, due.endpoint.id):
        return False
    query = select(COLUMNS.log, COLUMNS.tried, COLUMNS.due_at).where(_held(due)).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        return False
    state, due_at = step.state, now + step.wait
    if row.tried == 0 and state != "delivered":  # somebody has asked for it anew meanwhile
        state, due_at = "pending", row.due_at
    note = (
        update(webhook_deliveries)
        .where(_held(due))
        .values(
            state=state,
            due_at=due_at,
            ended_at=None if state == "pending" else now,
            log=[*row.log, attempt_json(attempt)][-MAX_LOGGED:],
            lease=None,
            lease_until=None,
        )
    )
    connection.execute(note)
    if step.disables is not None:
        _disable(connection, due.endpoint.id, step.disables, now)
    return True


def release(connection: Connection, due: Due) -> None:
    """See `Webhooks.release`."""
    give_back = {"lease": None, "lease_until": None}
    tried = case((COLUMNS.tried > 0, COLUMNS.tried - 1), else_=0)
    less = {"attempts": COLUMNS.attempts - 1, "tried": tried}
    connection.execute(update(webhook_deliveries).where(_held(due)).values(**give_back, **less))


def _held(due: Due) -> ColumnElement[bool]:
    """True for a pending delivery whose latest lease this is."""
    return and_(COLUMNS.id == due.id, COLUMNS.lease == due.lease, COLUMNS.state == "pending")


def _disable(connection: Connection, endpoint_id: str, reason: str, now: datetime) -> None:
    """The endpoint, which is locked; and what was on its way there ends."""
    disabled = (
        update(webhook_endpoints)
        .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.disabled_at.is_(None))
        .values(disabled_at=now, disabled_reason=reason)
    )
    connection.execute(disabled)
    ended = (
        update(webhook_deliveries)
        .where(COLUMNS.endpoint == endpoint_id, COLUMNS.state == "pending")
        .values(state="failed", ended_at=now, lease=None, lease_until=None)
    )
    connection.execute(ended)


def remove(connection: Connection, tenant: str, endpoint_id: str) -> None:
    """See `Webhooks.remove`."""
    endpoints = webhook_endpoints.c
    own = and_(endpoints.id == endpoint_id, endpoints.tenant == tenant)
    if not _lock(connection, endpoint_id, own):
        raise WebhookNotFound(webhook=endpoint_id)
    connection.execute(delete(webhook_deliveries).where(COLUMNS.endpoint == endpoint_id))
    connection.execute(delete(webhook_endpoints).where(own))


def _lock(connection: Connection, endpoint_id: str, own: ColumnElement[bool] | None = None) -> bool:
    """Until the transaction ends nobody enqueues for it; whether it is there."""
    where = webhook_endpoints.c.id == endpoint_id if own is None else own
    query = select(webhook_endpoints.c.seq).where(where).with_for_update()
    return connection.execute(query).first() is not None
