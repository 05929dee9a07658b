"""Run jobs, from their claim to their final states, whoever calls: a Celery task or a test.

A job may be delivered twice or to two workers. The claim and the fence decide: one worker at a time
has the job, and one that lost it (`LeaseLost`) can no longer change its record.

Jobs of one pair of models that wait are claimed together (a batch), because each module's alignment
is then read once for all of them. A job that was ever claimed before runs alone: of a batch that
broke, the one that is to blame finds itself alone, and the others are spared.
"""

import errno
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from app.domain.errors import (
    AdapterSafetyError,
    JobNotFound,
    TimeLimitReached,
    Unavailable,
    WorkerFault,
)
from app.domain.job import Job, JobResult, JobStatus
from app.jobs.held import Held
from app.jobs.lease import Lease, about, never, nothing
from app.jobs.ports import Events, Queue, Records
from app.jobs.submit import enqueue

logger = logging.getLogger(__name__)

# of a batch's adapters: each lies in staging up to three times, as fetched, changed and zipped
BATCH_BYTES = 2 << 30

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # of a disk, which somebody will make

Work = Callable[[Sequence[Held]], None]
"""Brings each of the jobs to its end."""


@dataclass(frozen=True)
class Desk:
    """Where a worker takes jobs from."""

    records: Records
    events: Events
    queue: Queue
    lease_s: float
    coalesce: int = 1  # most jobs in one batch
    is_stopping: Callable[[], bool] = never  # whether this worker has no more time
    on_beat: Callable[[], None] = nothing  # a job goes on, so this worker lives

    def hold(self, job: Job, *, together_with: str | None = None) -> Held:
        return Held(
            job,
            records=self.records,
            events=self.events,
            lease_s=self.lease_s,
            is_stopping=self.is_stopping,
            on_beat=self.on_beat,
            together_with=together_with,
        )


def alone(work: Callable[[Job, Lease], JobResult]) -> Work:
    """The work of a kind of job that goes one by one."""

    def one_by_one(held: Sequence[Held]) -> None:
        for each in held:
            result = each.attempt(lambda each=each: work(each.job, each.lease))  # type: ignore[misc] # because mypy knows no default of a lambda
            if result is not None:
                each.succeed(result)

    return one_by_one


def run_job(job_id: str, work: Work, desk: Desk) -> JobStatus | None:
    """Claim the job and its companions, do `work`, record how each ended. The job's own final
    status; None when there was nothing to claim."""
    first = _claimed(job_id, desk)
    if first is None:
        return None
    with ExitStack() as stack:
        stack.enter_context(about(first))
        companions = _companions(first, desk)
        held = [desk.hold(job, together_with=first.traceparent) for job in companions]
        held.insert(0, desk.hold(first))
        for each in reversed(held):  # the first's span is the innermost: what is done is within it
            stack.enter_context(each)
        _attempt(held, work, desk.queue)
    for each in held:
        if each.is_for_others:
            enqueue(each.job.id, each.job.kind, desk.queue)
    return held[0].status


def end_overdue(job_id: str, limit_s: float, desk: Desk) -> None:
    """Of a job whose worker was killed, because it ran over its time limit and could not be told.

    It fails, unless it may have had companions: then it has another try, alone, and so have they
    when their leases lapse. Raises JobNotFound, Unavailable.
    """
    job = desk.records.any_job(job_id)
    if job.status == "running":
        had_none = not job.is_first_claim or desk.coalesce < 2 or not job.is_coalesced
        held = desk.hold(job)
        _broken([held], TimeLimitReached(limit_s=limit_s), desk.queue, were_alone=had_none)


def _claimed(job_id: str, desk: Desk) -> Job | None:
    try:
        return desk.records.claim(job_id, lease_s=desk.lease_s)
    except JobNotFound:
        logger.warning("job %s is in the queue but not in the database", job_id)
    except Unavailable as error:  # the message is spent: the reconciler sends another
        logger.warning("job %s cannot be claimed: %s", job_id, error)
    return None


def _companions(first: Job, desk: Desk) -> list[Job]:
    if not first.is_coalesced or not first.is_first_claim or desk.coalesce < 2:
        return []
    try:
        return desk.records.claim_companions(
            first, lease_s=desk.lease_s, most=desk.coalesce - 1, most_bytes=BATCH_BYTES
        )
    except Unavailable as error:
        logger.warning("job %s runs alone: %s", first.id, error)
        return []


def _attempt(held: Sequence[Held], work: Work, queue: Queue) -> None:
    try:
        ready = [each for each in held if each.attempt(each.check)]
        if ready:
            work(ready)
        if any(each.is_open for each in held):
            raise RuntimeError("the work has left a job without an end")
    except TimeLimitReached as error:
        logger.warning("jobs %s: %s", _names(held), error)
        _broken(held, error, queue, were_alone=len(held) == 1)
    except AdapterSafetyError as error:  # of the models or the stores, so of every job
        _stop(held, error)
    except Exception as error:  # the one edge where a bug ends a job, and is told as such
        logger.exception("jobs %s failed", _names(held))
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            _stop(held, Unavailable(part="storage"))
        else:
            _broken(held, error, queue, were_alone=len(held) == 1)


def _stop(held: Sequence[Held], error: AdapterSafetyError) -> None:
    for each in _open(held):
        each.stop(error)


def _broken(held: Sequence[Held], error: Exception, queue: Queue, *, were_alone: bool) -> None:
    """A job that was alone fails. Of a batch nobody knows who is to blame: each runs alone now."""
    known = error if isinstance(error, AdapterSafetyError) else None
    fault = known or WorkerFault(kind=type(error).__name__)
    for each in _open(held):
        if were_alone:
            each.stop(fault)
        else:
            each.give_back()
            enqueue(each.job.id, each.job.kind, queue)


def _names(held: Sequence[Held]) -> str:
    return ", ".join(each.job.id for each in _open(held))


def _open(held: Sequence[Held]) -> list[Held]:
    return [each for each in held if each.is_open]
