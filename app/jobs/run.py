"""Run a job, from its claim to its final state, whoever calls: a Celery task or a test.

A job may be delivered twice or to two workers. The claim and the fence decide: one worker at a time
has the job, and one that lost it (`LeaseLost`) can no longer change its record.
"""

import logging
from collections.abc import Callable

from app.domain.errors import (
    AdapterSafetyError,
    JobCancelled,
    JobNotFound,
    LeaseLost,
    TooManyAttempts,
    Unavailable,
    WorkerFault,
)
from app.domain.job import Fault, Job, JobResult, JobStatus
from app.jobs.lease import Lease
from app.jobs.ports import Events, Records

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3  # because a job that killed its worker three times will do so again

Work = Callable[[Job, Lease], JobResult]


def run_job(
    job_id: str, work: Work, *, records: Records, events: Events, lease_s: float
) -> JobStatus | None:
    """Claim the job, do `work`, record how it ended. None when there was nothing to claim."""
    try:
        job = records.claim(job_id, lease_s=lease_s)
    except JobNotFound:
        logger.warning("job %s is in the queue but not in the database", job_id)
        return None
    if job is None:
        return None
    events.publish(job_id, "running", {"status": "running", "attempt": job.attempts})
    with Lease(job, records=records, events=events, lease_s=lease_s) as lease:
        return _attempt(job, work, lease, records, events)


def _attempt(
    job: Job, work: Work, lease: Lease, records: Records, events: Events
) -> JobStatus | None:
    try:
        return _finish(job, records, events, "succeeded", result=_work(job, work, lease))
    except JobCancelled:
        return _finish(job, records, events, "cancelled")
    except LeaseLost:
        logger.warning("job %s was taken over by another worker", job.id)
    except Unavailable as error:
        logger.warning("job %s goes back to the queue: %s", job.id, error)
        records.release(job.id, fence=job.fence)
    except AdapterSafetyError as error:
        return _finish(job, records, events, "failed", fault=Fault.of(error))
    except Exception as error:  # the one edge where a bug ends a job, and is told as such
        logger.exception("job %s failed", job.id)
        fault = Fault.of(WorkerFault(kind=type(error).__name__))
        return _finish(job, records, events, "failed", fault=fault)
    return None


def _work(job: Job, work: Work, lease: Lease) -> JobResult:
    if job.attempts > MAX_ATTEMPTS:
        raise TooManyAttempts(attempts=MAX_ATTEMPTS)
    lease.check()
    return work(job, lease)


def _finish(
    job: Job,
    records: Records,
    events: Events,
    status: JobStatus,
    *,
    result: JobResult | None = None,
    fault: Fault | None = None,
) -> JobStatus | None:
    """The record first: an event only tells what the database already holds."""
    try:
        records.finish(job.id, fence=job.fence, status=status, result=result, fault=fault)
    except LeaseLost:
        logger.warning("job %s was finished by another worker", job.id)
        return None
    problem = {"problem": {"code": fault.code, "detail": fault.detail}} if fault else {}
    events.publish(job.id, status, {"status": status, **problem})
    return status
