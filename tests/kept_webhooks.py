"""Webhooks and deliveries to keep, and a clock that tests move."""

import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from app.domain.access import DEFAULT_TENANT
from app.domain.errors import WorkerFault
from app.domain.job import Fault, JobResult, JobStatus
from app.domain.room import Room
from app.domain.webhook import (
    Attempt,
    Delivery,
    Due,
    Endpoint,
    EventType,
    Secret,
)
from app.storage.database import Database
from app.storage.records import SqlRecords
from app.storage.webhook_events import enqueue_event
from app.storage.webhooks import SqlWebhooks
from tests.samples import a_kept_job, entry_of

LEASE_S = 60.0
REFUSED = Attempt(datetime.now(UTC), 12, 500, None, "no\x00\ufffd")


class Clock:
    """Of the database's due times."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self, _: Connection) -> datetime:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def an_endpoint(*events: EventType) -> Endpoint:
    now = datetime.now(UTC)
    named = events or ("job.succeeded", "job.failed")
    return Endpoint(uuid.uuid4().hex, "https://a.example/", named, (Secret("whsec_1", now),), now)


def enqueued(database: Database, clock: Clock, count: int = 1, tenant: str = DEFAULT_TENANT) -> int:
    with database.write() as connection:
        return sum(
            enqueue_event(connection, tenant, "job.failed", {"number": number}, clock.now)
            for number in range(count)
        )


def listed(webhooks: SqlWebhooks, endpoint: Endpoint) -> list[Delivery]:
    return list(webhooks.deliveries(endpoint.id, state=None, limit=200, cursor=None).items)


def claimed(webhooks: SqlWebhooks, **bounds: int) -> list[Due]:
    return webhooks.claim_due(lease_s=LEASE_S, room=Room(**bounds))


def end(records: SqlRecords, status: JobStatus) -> str:
    job = a_kept_job(records)
    held = records.claim(job.id, lease_s=60)
    assert held is not None
    fault = Fault.of(WorkerFault(kind="x")) if status == "failed" else None
    result = JobResult(entry_of(b"r"), None) if status == "succeeded" else None
    records.finish(job.id, fence=held.fence, status=status, result=result, fault=fault)
    return job.id
