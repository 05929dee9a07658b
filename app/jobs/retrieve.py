"""Read what a job left behind."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from app.domain.adapter import FileEntry
from app.domain.errors import JobNotFinished, ResultNotFound, Unavailable
from app.domain.job import FINAL, Job, JobEvent, JobKind, JobResult
from app.jobs.ports import Artifacts, Events, Records

POLL_S = 2.0  # how often the record is asked while no event comes: events inform, the record rules
AWAY_S = 0.5  # pause before asking a broker again that does not answer


_KINDS: Mapping[JobKind, str] = {
    "patch": "a patch",
    "score": "a score",
    "alignment": "an alignment",
    "safety_module": "a safety module",
    "salora_init": "a SaLoRA initialisation",
    "salora_train": "a SaLoRA training",
    "salora_export": "an export",
    "evaluate": "an evaluation",
    "frontier": "a search for a frontier",
}


def finished_result(job: Job, what: str) -> JobResult:
    """Raises JobNotFinished for a job under way, ResultNotFound for one that left nothing."""
    if job.result is not None:
        return job.result
    if job.is_final:
        raise ResultNotFound(job=job.id, status=job.status, what=what)
    raise JobNotFinished(job=job.id, status=job.status, what=what)


def patched_archive(job: Job) -> FileEntry:
    """Raises JobNotFinished, ResultNotFound (not every kind leaves one)."""
    archive = finished_result(job, "adapter").archive
    if archive is None:
        raise ResultNotFound(job=job.id, status=_KINDS[job.kind], what="adapter")
    return archive


def written_transcripts(job: Job) -> FileEntry:
    """Raises JobNotFinished, ResultNotFound (where no answers were written none are there)."""
    transcripts = finished_result(job, "transcripts").transcripts
    if transcripts is None:
        ended = f"{_KINDS[job.kind]} that wrote no answers"
        raise ResultNotFound(job=job.id, status=ended, what="transcripts")
    return transcripts


def read_report(job: Job, artifacts: Artifacts) -> dict[str, Any]:
    """The job's report as plain values. Raises JobNotFinished, ResultNotFound, ArtifactCorrupt."""
    file = finished_result(job, "report").report
    report: dict[str, Any] = json.loads(read_whole(file, artifacts))
    return report


def read_whole(file: FileEntry, artifacts: Artifacts) -> bytes:
    return b"".join(artifacts.read(file, 0, file.size_bytes))


async def wait_until_final(job_id: str, seconds: float, records: Records, events: Events) -> Job:
    """The job as soon as it is final, or as it is after `seconds`. Raises JobNotFound."""
    deadline, after = time.monotonic() + seconds, "0"
    while True:
        job = await asyncio.to_thread(records.job, job_id)
        left = deadline - time.monotonic()
        if job.is_final or left <= 0:
            return job
        for event in await _news(events, job_id, after, min(left, POLL_S)):
            after = event.id


async def follow(
    job_id: str, after: str, records: Records, events: Events
) -> AsyncIterator[JobEvent]:
    """The job's events after the id `after`, as they come, up to its final one.

    Where the stream or its last event was lost, the record gives the final event.
    """
    while True:
        job = await asyncio.to_thread(records.job, job_id)
        news = await _news(events, job_id, after, 0 if job.is_final else POLL_S)
        for event in news:
            after = event.id
            yield event
            if event.name in FINAL:
                return
        if job.is_final and not news:
            yield JobEvent(_final_id(job), job.status, {"status": job.status})
            return


async def is_told(job_id: str, after: str, records: Records, events: Events) -> bool:
    """Whether the event `after`, which a client has seen, was the final one. Raises JobNotFound."""
    job = await asyncio.to_thread(records.job, job_id)
    if after == "0" or not job.is_final:
        return False
    if after == _final_id(job):
        return True
    try:
        last = await events.last(job_id)
    except Unavailable:
        return False
    return last is not None and last.name in FINAL and last.id == after


def _final_id(job: Job) -> str:
    """The id of a final event that only the record knows, in the form of a stream's ids."""
    ended = job.finished_at or job.created_at
    return f"{int(ended.timestamp() * 1000)}-0"


async def _news(events: Events, job_id: str, after: str, seconds: float) -> list[JobEvent]:
    try:
        return await events.read(job_id, after=after, block_s=seconds)
    except Unavailable:
        await asyncio.sleep(min(seconds, AWAY_S))
        return []
