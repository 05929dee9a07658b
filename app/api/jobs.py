"""/v1/jobs"""

from collections.abc import Sequence
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Response

from app.api.access import ReadServices, SubmitServices
from app.api.job_bodies import AnyJobIn
from app.api.job_schemas import JobOut, JobPage, job_path
from app.api.prefer import WaitDep, applied
from app.api.services import Services
from app.domain.adapter import StoredModule
from app.domain.errors import InvalidField
from app.domain.job import Job, JobKind, JobStatus
from app.jobs.cancel import cancel
from app.jobs.ports import IdempotencyKey
from app.jobs.retrieve import wait_until_final
from app.jobs.submit import JobRequest, check_request, submit

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

MAX_KEY_CHARS = 255
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Repeat a POST with the same key, and it is done once.",
    ),
]


def submit_job(request: JobRequest, key: str | None, services: Services) -> Job:
    """Submit over the ports of this application. Raises what `submit` raises."""
    if key is not None and not (1 <= len(key) <= MAX_KEY_CHARS and key.isprintable()):
        reason = f"must be 1 to {MAX_KEY_CHARS} printable characters"
        raise InvalidField(field="Idempotency-Key", reason=reason)
    return submit(
        request,
        key,
        records=services.records,
        queue=services.queue,
        events=services.events,
        models=services.models,
        quotas=services.quotas,
    )


def check_new(
    request: JobRequest, modules: Sequence[StoredModule], key: str | None, services: Services
) -> None:
    """Check a request for an adapter that is not stored yet, unless its key is known already.

    Raises what `check_request` raises, and IdempotencyKeyReused.
    """
    known = IdempotencyKey(key, request.sha256) if key else None
    if known is None or services.records.job_for_key(known) is None:
        check_request(request, modules, models=services.models, records=services.records)


async def settle(job: Job, wait_s: float | None, services: Services) -> Job:
    """The job as it is when it is final, or when the client has waited long enough."""
    if wait_s is None or job.is_final:
        return job
    return await wait_until_final(job.id, wait_s, services.records, services.events)


@router.post("", status_code=202, responses={200: {"model": JobOut, "description": "Finished"}})
async def create_job(
    body: AnyJobIn,
    services: SubmitServices,
    response: Response,
    wait_s: WaitDep,
    key: IdempotencyKeyHeader = None,
) -> JobOut:
    """Submit a job. With `Prefer: wait=N` the answer is 200 if it ends within N seconds."""
    job = await to_thread.run_sync(submit_job, body.to_domain(), key, services)
    job = await settle(job, wait_s, services)
    response.headers.update({"Location": job_path(job.id), **applied(wait_s)})
    response.status_code = 200 if wait_s is not None and job.is_final else 202
    return JobOut.of(job)


@router.get("")
def list_jobs(
    services: ReadServices,
    status: JobStatus | None = None,
    kind: JobKind | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> JobPage:
    """Jobs, newest first."""
    page = services.records.jobs(status=status, kind=kind, limit=limit, cursor=cursor)
    return JobPage(items=[JobOut.of(job) for job in page.items], next_cursor=page.cursor)


@router.get("/{job_id}")
def show_job(job_id: str, services: ReadServices) -> JobOut:
    """One job."""
    return JobOut.of(services.records.job(job_id))


@router.delete("/{job_id}", status_code=202)
def cancel_job(job_id: str, services: SubmitServices) -> JobOut:
    """Cancel a job: at once while it is queued, between two modules while it runs."""
    return JobOut.of(cancel(job_id, records=services.records, events=services.events))
