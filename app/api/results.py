"""/v1/jobs/{id}/events, /report, /adapter and /transcripts"""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from app.api.access import ReadServices, TranscriptServices
from app.api.negotiate import report_format
from app.api.ranges import file_response
from app.api.services import Services
from app.domain.errors import InvalidField
from app.domain.job import Job, JobKind, PatchKind
from app.domain.method import Selection, one_selection
from app.jobs.decide import what_if
from app.jobs.render import FORMATS
from app.jobs.retrieve import (
    follow,
    is_told,
    patched_archive,
    read_report,
    written_transcripts,
)

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])

RETRY_MS = 1000
JSON_LINES = "application/jsonl"
DONE: Mapping[JobKind, str] = {"salora_train": "trained", "salora_export": "exported"}


async def _resume_from(
    job_id: str,
    services: ReadServices,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> str:
    """The event id to go on after; checked before the stream starts, so that errors are problems.

    204 tells a browser's EventSource, which reconnects for ever, that all has been told.
    """
    after = last_event_id or "0"
    if await is_told(job_id, after, services.records, services.events):
        raise HTTPException(204)
    await services.events.read(job_id, after=after, block_s=0)
    return after


@router.get("/events", response_class=EventSourceResponse)
async def stream_events(
    job_id: str, services: ReadServices, after: Annotated[str, Depends(_resume_from)]
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `queued`, `running`, `module` (one a module), and the final status.

    A dropped connection resumes after `Last-Event-ID` and misses nothing.
    """
    async for event in follow(job_id, after, services.records, services.events):
        yield ServerSentEvent(data=event.data, event=event.name, id=event.id, retry=RETRY_MS)


def _other_selection(
    threshold: float | None = None,
    count: int | None = None,
    fraction: float | None = None,
    all: bool = False,  # noqa: A002 because this is the query parameter's public name
) -> Selection | None:
    """Raises InvalidField naming the parameter."""
    given = {"threshold": threshold, "count": count, "fraction": fraction, "all": all or None}
    return one_selection({name: value for name, value in given.items() if value is not None})


@router.get(
    "/report",
    responses={
        200: {
            "description": "The report; JSON, CSV, Markdown, HTML or SARIF by `format` or `Accept`",
            "content": {media.split(";")[0]: {} for media, _ in FORMATS.values()},
        }
    },
)
def show_report(
    job_id: str,
    services: ReadServices,
    other: Annotated[Selection | None, Depends(_other_selection)],
    format: str | None = None,  # noqa: A002 because this is the query parameter's public name
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """What was changed, layer by layer, and why.

    With `threshold`, `count`, `fraction` or `all` the stored cosines are decided anew, at once and
    without a worker: what another selection would do.
    """
    job = services.records.job(job_id)
    media_type, render = FORMATS[report_format(format, accept)]
    if other is not None and job.kind not in get_args(PatchKind):
        reason = "the report of this kind of job holds no decisions to make anew"
        raise InvalidField(field=other.by, reason=reason)
    report = read_report(job, services.artifacts)
    if other is not None:
        report = what_if(report, other).as_json()
    return Response(render(report), media_type=media_type, headers={"Vary": "Accept"})


@router.get(
    "/adapter",
    responses={
        200: {"content": {"application/zip": {}}, "description": "The patched adapter"},
        206: {"description": "The part that `Range` asked for"},
    },
)
def download_adapter(job_id: str, request: Request, services: ReadServices) -> Response:
    """The patched adapter as a zip: a PEFT folder with `safety_report.json` and a README."""
    return adapter_response(services.records.job(job_id), request.headers, services)


@router.head("/adapter", include_in_schema=False)
def describe_adapter(job_id: str, request: Request, services: ReadServices) -> Response:
    """The download's headers: its size, ETag and digest."""
    job = services.records.job(job_id)
    return adapter_response(job, request.headers, services, head=True)


def adapter_response(
    job: Job, headers: Mapping[str, str], services: Services, *, head: bool = False
) -> Response:
    """`headers` are the request's, for ranges. Raises JobNotFinished, ResultNotFound."""
    return file_response(
        patched_archive(job),
        services.artifacts,
        request_headers=headers,
        media_type="application/zip",
        file_name=f"adapter-{(job.adapter or job.id)[:12]}-{DONE.get(job.kind, 'patched')}.zip",
        head=head,
    )


@router.get(
    "/transcripts",
    response_class=Response,
    responses={
        200: {"content": {JSON_LINES: {}}, "description": "Prompts and answers, one a line"},
        206: {"description": "The part that `Range` asked for"},
    },
)
def download_transcripts(job_id: str, request: Request, services: TranscriptServices) -> Response:
    """What was asked and what was answered, in JSON lines. Needs the scope `transcripts`."""
    return file_response(
        written_transcripts(services.records.job(job_id)),
        services.artifacts,
        request_headers=request.headers,
        media_type=JSON_LINES,
        file_name=f"transcripts-{job_id[:12]}.jsonl",
        head=request.method == "HEAD",
    )


router.head("/transcripts", include_in_schema=False)(download_transcripts)
