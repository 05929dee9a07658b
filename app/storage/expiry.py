"""Records that are over their time."""

from datetime import timedelta

from sqlalchemy import Connection, delete, exists, select

from app.domain.job import FINAL
from app.storage.database import utc_now
from app.storage.tables import adapters, idempotency_keys, jobs

AT_ONCE = 500  # rows, because a transaction should be short


def expire_jobs(connection: Connection, kept: timedelta, *, dry_run: bool) -> list[str]:
    """The ids of up to `AT_ONCE` jobs that ended longer ago than `kept`; they are gone, and their
    idempotency keys, unless it is a dry run."""
    ended = jobs.c.finished_at < utc_now(connection) - kept
    query = select(jobs.c.id).where(jobs.c.status.in_(FINAL), ended).order_by(jobs.c.seq)
    if dry_run:
        return list(connection.scalars(query))
    found = list(connection.scalars(query.limit(AT_ONCE)))
    connection.execute(delete(idempotency_keys).where(idempotency_keys.c.job.in_(found)))
    connection.execute(delete(jobs).where(jobs.c.id.in_(found)))
    return found


def expire_adapters(connection: Connection, kept: timedelta, *, dry_run: bool) -> int:
    """How many adapters, up to `AT_ONCE`, came the last time longer ago than `kept`, and no job
    names them."""
    used = exists().where(jobs.c.tenant == adapters.c.tenant, jobs.c.adapter == adapters.c.id)
    old = adapters.c.uploaded_at < utc_now(connection) - kept
    query = select(adapters.c.seq).where(old, ~used).order_by(adapters.c.seq)
    if dry_run:
        return len(connection.scalars(query).all())
    # Locked, so that a job that comes now waits, and finds no adapter.
    found = connection.scalars(query.limit(AT_ONCE).with_for_update(skip_locked=True)).all()
    gone = delete(adapters).where(adapters.c.seq.in_(found), ~used)
    return connection.execute(gone).rowcount


def named_files(connection: Connection) -> set[str]:
    """The SHA-256 of every file that an adapter or a result names."""
    found: set[str] = set()
    for files in connection.scalars(select(adapters.c.files)):
        found.update(file["sha256"] for file in files.values())
    for result in connection.scalars(select(jobs.c.result).where(jobs.c.result.is_not(None))):
        found.update(file["sha256"] for file in result.values() if file)
    return found
