"""/v1/alignments: what is kept of pairs of models, and the jobs that keep it ahead of time."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Response

from app.api.access import ReadServices, SubmitServices
from app.api.alignment_schemas import AlignmentIn, PairOut, PairPage
from app.api.job_schemas import JobOut, job_path
from app.api.jobs import IdempotencyKeyHeader, settle, submit_job
from app.api.prefer import WaitDep, applied

router = APIRouter(prefix="/v1/alignments", tags=["alignments"])


@router.post("", status_code=202, responses={200: {"model": JobOut, "description": "Finished"}})
async def create_alignment(
    body: AlignmentIn,
    services: SubmitServices,
    response: Response,
    wait_s: WaitDep,
    key: IdempotencyKeyHeader = None,
) -> JobOut:
    """Compute two models' alignments before an adapter needs them: a job of kind `alignment`."""
    job = await to_thread.run_sync(submit_job, body.to_domain(), key, services)
    job = await settle(job, wait_s, services)
    response.headers.update({"Location": job_path(job.id), **applied(wait_s)})
    response.status_code = 200 if wait_s is not None and job.is_final else 202
    return JobOut.of(job)


@router.get("")
def list_alignments(
    services: ReadServices,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> PairPage:
    """Pairs of models with kept alignments, newest first, as the workers last said."""
    page = services.records.alignments(limit=limit, cursor=cursor)
    return PairPage(items=[PairOut.of(pair) for pair in page.items], next_cursor=page.cursor)
