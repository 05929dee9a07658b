"""New rows, each in the caller's transaction: adapters, jobs, and the keys that keep a request from
being done twice."""

from typing import Any

from sqlalchemy import Connection, Table, exc, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.adapter import StoredAdapter
from app.domain.errors import AdapterNotFound, IdempotencyKeyReused
from app.domain.job import Job
from app.jobs.ports import IdempotencyKey
from app.storage import job_moves
from app.storage.database import utc_now
from app.storage.tables import adapters, idempotency_keys, jobs


def insert_job(connection: Connection, values: dict[str, Any]) -> None:
    """Raises AdapterNotFound where the adapter's time ran out a moment ago."""
    try:
        connection.execute(jobs.insert().values(values))
    except exc.IntegrityError as error:
        raise AdapterNotFound(adapter=values["adapter"]) from error


def touch(connection: Connection, tenant: str, adapter: StoredAdapter) -> bool:
    """Note that an adapter came again; False where it is not there yet."""
    again = (
        update(adapters)
        .where(adapters.c.tenant == tenant, adapters.c.id == adapter.id)
        .values(uploaded_at=utc_now(connection))
    )
    return connection.execute(again).rowcount > 0


def insert_if_absent(connection: Connection, table: Table, values: dict[str, Any]) -> bool:
    """Insert a row; False when a unique value of it is taken (a racing insert is waited for)."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table).values(values).on_conflict_do_nothing()
    inserted = connection.execute(insert.returning(*table.primary_key.columns))
    return inserted.first() is not None


def take_key(connection: Connection, idempotency: IdempotencyKey, job: Job) -> Job | None:
    """Take the key for `job`; the job that has it where it is taken. Raises IdempotencyKeyReused.

    The key refers to a job that is not there yet: its foreign key is checked at commit.
    """
    values = {
        "tenant": job.tenant,
        "key": idempotency.key,
        "request_sha256": idempotency.request_sha256,
        "job": job.id,
        "created_at": job.created_at,
    }
    if insert_if_absent(connection, idempotency_keys, values):
        return None
    return job_for_key(connection, idempotency, job.tenant)


def job_for_key(connection: Connection, idempotency: IdempotencyKey, tenant: str) -> Job | None:
    key = idempotency_keys.c
    query = select(key.request_sha256, key.job).where(
        key.tenant == tenant, key.key == idempotency.key
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != idempotency.request_sha256:
        raise IdempotencyKeyReused(key=idempotency.key)
    return job_moves.find_job(connection, row.job)
