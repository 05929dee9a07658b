"""Cancel a job."""

from app.domain.job import Job
from app.jobs.ports import Events, Records


def cancel(job_id: str, *, records: Records, events: Events) -> Job:
    """A queued job is cancelled at once, a running one between two modules.

    Raises JobNotFound, JobAlreadyFinished.
    """
    job = records.request_cancel(job_id)
    if job.is_final:
        events.publish(job_id, job.status, {"status": job.status})
    return job
