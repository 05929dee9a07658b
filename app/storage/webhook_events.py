"""Events become deliveries in the transaction in which they happen: what is rolled back is told to
nobody, and what is committed is told, whatever dies next."""

import uuid
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, select

from app.domain.job import Job
from app.domain.job_event import OF_STATUS, job_event_data
from app.domain.webhook import EventType, event_body
from app.storage.tables import webhook_deliveries, webhook_endpoints


def enqueue_event(
    connection: Connection,
    tenant: str,
    event_type: EventType,
    data: Mapping[str, object],
    now: datetime,
) -> int:
    """Have the tenant's endpoints that asked for it told of an event; how many. To be called in the
    transaction that makes it true, as its last step: it holds the endpoints until the commit.

    Raises ValueError for data with which the body would not be under MAX_BODY_BYTES.
    """
    found = _subscribed(connection, tenant, event_type)
    if not found:
        return 0
    event = {
        "tenant": tenant,
        "event_type": event_type,
        "event": f"evt_{uuid.uuid4().hex}",
        "body": event_body(event_type, data, now),
        "created_at": now,
    }
    start = {"state": "pending", "attempts": 0, "tried": 0, "due_at": now, "log": []}
    rows = [{**event, **start, "id": uuid.uuid4().hex, "endpoint": each} for each in found]
    connection.execute(webhook_deliveries.insert(), rows)
    return len(rows)


def _subscribed(connection: Connection, tenant: str, event_type: EventType) -> list[str]:
    """Ids, locked against being deleted or disabled, so that no delivery is left behind."""
    columns = webhook_endpoints.c
    query = (
        select(columns.id, columns.events)
        .where(columns.tenant == tenant, columns.disabled_at.is_(None))
        .order_by(columns.seq)
        .with_for_update(read=True, key_share=True)
    )
    return [row.id for row in connection.execute(query) if event_type in row.events]


def enqueue_job_event(connection: Connection, job: Job, now: datetime) -> None:
    """Tell of a job that has just ended; a cancelled one is no event."""
    event_type = OF_STATUS.get(job.status)
    if event_type is not None:
        enqueue_event(connection, job.tenant, event_type, job_event_data(job), now)
