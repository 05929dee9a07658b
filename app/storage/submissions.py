"""New jobs, each in the caller's transaction, and the keys that keep a request from being done
twice."""

from sqlalchemy import Connection, exc, select

from app.domain.errors import AdapterNotFound, IdempotencyKeyReused
from app.domain.job import Job
from app.jobs.ports import IdempotencyKey
from app.storage import job_moves
from app.storage.database import insert_if_absent, utc_now
from app.storage.job_uses import note_uses
from app.storage.rows import job_values
from app.storage.tables import idempotency_keys, jobs


def insert_job(connection: Connection, job: Job) -> None:
    """Raises AdapterNotFound, DatasetNotFound, PartNotFound or JobNotFound where the time of what
    it names ran out a moment ago."""
    try:
        connection.execute(jobs.insert().values(job_values(job, queued_at=utc_now(connection))))
    except exc.IntegrityError as error:
        raise AdapterNotFound(adapter=job.adapter) from error
    note_uses(connection, job)


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
