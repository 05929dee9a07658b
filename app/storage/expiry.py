"""Records that are over their time."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import Column, ColumnElement, Connection, delete, exists, false, literal, select

from app.domain.adapter import FileEntry
from app.domain.job import FINAL
from app.storage.database import Database, utc_now
from app.storage.job_uses import forget_uses
from app.storage.rows import RESULT_FILES
from app.storage.tables import (
    UtcDateTime,
    adapters,
    datasets,
    idempotency_keys,
    job_uses,
    jobs,
    parts,
    webhook_deliveries,
)

AT_ONCE = 500  # rows, because a transaction should be short


class Expire(Protocol):
    """Takes up to `AT_ONCE` rows away; how many."""

    def __call__(self, connection: Connection, kept: timedelta, *, dry_run: bool) -> int: ...


def expire_jobs(connection: Connection, kept: timedelta, *, dry_run: bool) -> list[str]:
    """The ids of up to `AT_ONCE` jobs that ended longer ago than `kept`, and whose archive no other
    job names; they are gone, and their idempotency keys, unless it is a dry run."""
    ended = jobs.c.finished_at < utc_now(connection) - kept
    is_named = exists().where(job_uses.c.made_by == jobs.c.id)
    query = select(jobs.c.id).where(jobs.c.status.in_(FINAL), ended, ~is_named).order_by(jobs.c.seq)
    if dry_run:
        return list(connection.scalars(query))
    # Locked, so that a job that names one now waits, and finds none; looked at again, because one
    # may have come before the lock.
    locked = list(connection.scalars(query.limit(AT_ONCE).with_for_update(skip_locked=True)))
    found = list(connection.scalars(query.where(jobs.c.id.in_(locked))))
    connection.execute(delete(idempotency_keys).where(idempotency_keys.c.job.in_(found)))
    forget_uses(connection, found)
    connection.execute(delete(jobs).where(jobs.c.id.in_(found)))
    return found


def expire_adapters(connection: Connection, kept: timedelta, *, dry_run: bool) -> int:
    """How many adapters, up to `AT_ONCE`, came the last time longer ago than `kept`, and no job
    names them."""
    own = exists().where(jobs.c.tenant == adapters.c.tenant, jobs.c.adapter == adapters.c.id)
    measured = exists().where(
        job_uses.c.tenant == adapters.c.tenant, job_uses.c.adapter == adapters.c.id
    )
    return _expire(connection, adapters.c.uploaded_at, own | measured, kept, dry_run=dry_run)


def expire_datasets(connection: Connection, kept: timedelta, *, dry_run: bool) -> int:
    """As `expire_adapters`."""
    used = exists().where(
        job_uses.c.tenant == datasets.c.tenant, job_uses.c.dataset == datasets.c.id
    )
    return _expire(connection, datasets.c.uploaded_at, used, kept, dry_run=dry_run)


def expire_parts(connection: Connection, kept: timedelta, *, dry_run: bool) -> int:
    """As `expire_adapters`, by when they were used the last time."""
    used = exists().where(
        job_uses.c.tenant == parts.c.tenant,
        job_uses.c.part_kind == parts.c.kind,
        job_uses.c.part == parts.c.id,
    )
    return _expire(connection, parts.c.used_at, used, kept, dry_run=dry_run)


def expire_deliveries(connection: Connection, kept: timedelta, *, dry_run: bool) -> int:
    """As `expire_adapters`, of deliveries that have ended."""
    return _expire(connection, webhook_deliveries.c.ended_at, false(), kept, dry_run=dry_run)


def _expire(
    connection: Connection,
    last: Column[Any],
    is_named: ColumnElement[bool],
    kept: timedelta,
    *,
    dry_run: bool,
) -> int:
    """Rows of the table of `last` that are older than `kept` and that no job names."""
    table = last.table
    old = last < literal(utc_now(connection) - kept, UtcDateTime())
    query = select(table.c.seq).where(old, ~is_named).order_by(table.c.seq)
    if dry_run:
        return len(connection.scalars(query).all())
    # Locked, so that a job that comes now waits, and finds none.
    found = connection.scalars(query.limit(AT_ONCE).with_for_update(skip_locked=True)).all()
    gone = delete(table).where(table.c.seq.in_(found), ~is_named)
    return connection.execute(gone).rowcount


def in_rounds(database: Database, expire: Expire, kept: timedelta, *, dry_run: bool) -> int:
    """Until nothing is left, in transactions of `AT_ONCE` rows; how many."""
    gone = 0
    while True:
        with database.write() as connection:
            found = expire(connection, kept, dry_run=dry_run)
        gone += found
        if dry_run or found < AT_ONCE:
            return gone


def named_files(connection: Connection) -> set[str]:
    """The SHA-256 of every file that a record names: of an adapter, a data set, a part, a result,
    or a checkpoint."""
    return {file["sha256"] for file in _files(connection)}


def named_entries(connection: Connection) -> set[FileEntry]:
    """The same files, with their sizes."""
    return {FileEntry(file["sha256"], file["size_bytes"]) for file in _files(connection)}


def _files(connection: Connection) -> Iterator[Mapping[str, Any]]:
    for files in connection.scalars(select(adapters.c.files)):
        yield from files.values()
    for column in (datasets.c.file, parts.c.file, parts.c.report):
        yield from connection.scalars(select(column))
    for result in connection.scalars(select(jobs.c.result).where(jobs.c.result.is_not(None))):
        yield from filter(None, (result.get(name) for name in RESULT_FILES))
    held = select(jobs.c.checkpoint).where(jobs.c.checkpoint.is_not(None))
    yield from (checkpoint["file"] for checkpoint in connection.scalars(held))
