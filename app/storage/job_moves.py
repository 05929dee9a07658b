"""How a job moves between its states: each move is one conditional UPDATE, so that of two who try
at once exactly one succeeds, whichever process or machine they run on."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    func,
    literal,
    null,
    or_,
    select,
    true,
    update,
)

from app.domain.errors import JobAlreadyFinished, JobNotFound, LeaseLost
from app.domain.job import COALESCED, FINAL, Checkpointed, Fault, Job, JobKind, JobResult, JobStatus
from app.storage.database import utc_now
from app.storage.job_uses import note_made
from app.storage.rows import fault_json, result_json, to_job
from app.storage.salora_rows import checkpoint_json
from app.storage.tables import UtcDateTime, adapters, jobs
from app.storage.webhook_events import enqueue_job_event

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 900.0


def find_job(connection: Connection, job_id: str, tenant: str | None = None) -> Job:
    """Of one tenant, or of any. Raises JobNotFound."""
    query = select(jobs).where(jobs.c.id == job_id)
    if tenant is not None:
        query = query.where(jobs.c.tenant == tenant)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise JobNotFound(job=job_id)
    return to_job(row)


def claim(connection: Connection, job_id: str, *, lease_s: float) -> Job | None:
    """See `Records.claim`."""
    now = utc_now(connection)
    lease_ran_out = and_(jobs.c.status == "running", jobs.c.lease_until <= now)
    move = (
        update(jobs)
        .where(jobs.c.id == job_id, or_(jobs.c.status == "queued", lease_ran_out))
        .values(_claimed(now, lease_s))
    )
    row = connection.execute(move.returning(*jobs.c)).one_or_none()
    if row is None:
        find_job(connection, job_id)
        return None
    return to_job(row)


def claim_companions(
    connection: Connection, job: Job, *, lease_s: float, most: int, most_bytes: int
) -> list[Job]:
    """See `Records.claim_companions`. Rows that another transaction is about to take are passed
    over; SQLite has one writer at a time."""
    if not job.is_coalesced:
        return []
    chosen = _companions(connection, job, most=most, most_bytes=most_bytes)
    if not chosen:
        return []
    take = (
        update(jobs)
        .where(jobs.c.seq.in_(chosen), jobs.c.status == "queued")
        .values(_claimed(utc_now(connection), lease_s))
    )
    rows = connection.execute(take.returning(*jobs.c)).all()
    return [to_job(row) for row in sorted(rows, key=lambda row: row.seq)]


def _companions(connection: Connection, job: Job, *, most: int, most_bytes: int) -> list[int]:
    """The oldest that fit; their `seq`s."""
    of_own = and_(adapters.c.tenant == job.tenant, adapters.c.id == job.only_adapter)
    of_theirs = and_(adapters.c.tenant == jobs.c.tenant, adapters.c.id == jobs.c.adapter)
    candidates = (
        select(jobs.c.seq, adapters.c.size_bytes)
        .join(adapters, of_theirs)
        .where(
            jobs.c.status == "queued",
            jobs.c.fence == 0,
            jobs.c.kind.in_(COALESCED),
            jobs.c.base_model == job.base_model,
            jobs.c.chat_model == job.chat_model,
            jobs.c.method["name"].as_string() != "salora",
            jobs.c.recipe.is_(None),
        )
        .order_by(jobs.c.seq)
        .limit(most)
        .with_for_update(of=jobs, skip_locked=True)
    )
    own = select(adapters.c.size_bytes).where(of_own)
    left = most_bytes - connection.execute(own).scalar_one()
    chosen = []
    for row in connection.execute(candidates):
        if row.size_bytes <= left:
            chosen.append(row.seq)
            left -= row.size_bytes
    return chosen


def _claimed(now: datetime, lease_s: float) -> dict[str, Any]:
    """What a claim changes."""
    return {
        "status": "running",
        "fence": jobs.c.fence + 1,
        "attempts": jobs.c.attempts + 1,
        "modules_done": 0,
        "modules_total": 0,
        "started_at": func.coalesce(jobs.c.started_at, literal(now, UtcDateTime())),
        "lease_until": now + timedelta(seconds=lease_s),
    }


def heartbeat(
    connection: Connection,
    job_id: str,
    *,
    fence: int,
    lease_s: float,
    modules_done: int,
    modules_total: int,
) -> bool:
    """See `Records.heartbeat`."""
    renewal = (
        update(jobs)
        .where(_held(job_id, fence))
        .values(
            lease_until=utc_now(connection) + timedelta(seconds=lease_s),
            modules_done=modules_done,
            modules_total=modules_total,
        )
    )
    row = connection.execute(renewal.returning(jobs.c.cancel_requested)).one_or_none()
    if row is None:
        raise LeaseLost(job=job_id)
    return bool(row.cancel_requested)


def release(connection: Connection, job_id: str, *, fence: int) -> None:
    """See `Records.release`. Each time in a row the job rests twice as long, up to 15 minutes."""
    releases = connection.scalar(select(jobs.c.releases).where(jobs.c.id == job_id)) or 0
    pause_s = min(FIRST_PAUSE_S * 2.0**releases, LONGEST_PAUSE_S)
    move = (
        update(jobs)
        .where(_held(job_id, fence))
        .values(
            status="queued",
            queued_at=utc_now(connection) + timedelta(seconds=pause_s),
            releases=jobs.c.releases + 1,
            lease_until=None,
            attempts=jobs.c.attempts - 1,
        )
    )
    if connection.execute(move).rowcount == 0:
        raise LeaseLost(job=job_id)


def note_checkpoint(
    connection: Connection, job_id: str, *, fence: int, checkpoint: Checkpointed
) -> None:
    """See `Records.note_checkpoint`."""
    note = (
        update(jobs)
        .where(_held(job_id, fence))
        .values(checkpoint=checkpoint_json(checkpoint), attempts=1)
    )
    if connection.execute(note).rowcount == 0:
        raise LeaseLost(job=job_id)


def note_revisions(
    connection: Connection, job_id: str, *, fence: int, revisions: Mapping[str, str]
) -> None:
    """See `Records.note_revisions`."""
    note = update(jobs).where(_held(job_id, fence)).values(revisions=dict(revisions))
    if connection.execute(note).rowcount == 0:
        raise LeaseLost(job=job_id)


def finish(
    connection: Connection,
    job_id: str,
    *,
    fence: int,
    status: JobStatus,
    result: JobResult | None,
    fault: Fault | None,
) -> Job:
    """See `Records.finish`."""
    if status not in FINAL:
        raise ValueError(f"{status} is not a final status")
    now = utc_now(connection)
    move = (
        update(jobs)
        .where(_held(job_id, fence))
        .values(
            status=status,
            finished_at=now,
            lease_until=None,
            result=result_json(result),
            fault=fault_json(fault),
            checkpoint=jobs.c.checkpoint if status == "failed" else None,
        )
    )
    row = connection.execute(move.returning(*jobs.c)).one_or_none()
    if row is None:
        raise LeaseLost(job=job_id)
    job = to_job(row)
    note_made(connection, job)
    enqueue_job_event(connection, job, now)
    return job


def request_cancel(connection: Connection, job_id: str, tenant: str) -> Job:
    """See `Records.request_cancel`."""
    queued = jobs.c.status == "queued"
    now = literal(utc_now(connection), UtcDateTime())
    move = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.tenant == tenant, jobs.c.status.not_in(FINAL))
        .values(
            cancel_requested=true(),
            status=case((queued, "cancelled"), else_=jobs.c.status),
            finished_at=case((queued, now), else_=jobs.c.finished_at),
            checkpoint=case((queued, null()), else_=jobs.c.checkpoint),
        )
    )
    row = connection.execute(move.returning(*jobs.c)).one_or_none()
    if row is None:
        found = find_job(connection, job_id, tenant)
        raise JobAlreadyFinished(job=job_id, status=found.status)
    return to_job(row)


def count_queued(connection: Connection) -> int:
    """See `Records.count_queued`."""
    query = select(func.count()).where(jobs.c.status == "queued")
    return int(connection.execute(query).scalar_one())


def take_orphans(
    connection: Connection, *, queued_for_s: float, queue_is_short: bool
) -> list[tuple[str, JobKind]]:
    """See `Records.take_orphans`; oldest first."""
    now = utc_now(connection)
    sent_long_ago = jobs.c.queued_at <= now - timedelta(seconds=queued_for_s)
    lost = and_(jobs.c.status == "running", jobs.c.lease_until <= now)
    if queue_is_short:
        lost = or_(lost, jobs.c.status == "queued")
    take = update(jobs).where(sent_long_ago, lost).values(queued_at=now)
    rows = connection.execute(take.returning(jobs.c.seq, jobs.c.id, jobs.c.kind)).all()
    return [(row.id, row.kind) for row in sorted(rows, key=lambda row: row.seq)]


def _held(job_id: str, fence: int) -> ColumnElement[bool]:
    """True for a running job whose latest claim has this fence."""
    return and_(jobs.c.id == job_id, jobs.c.status == "running", jobs.c.fence == fence)
