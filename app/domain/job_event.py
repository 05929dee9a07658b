"""What an event tells of a job that ended. Bounded, because names and faults come from strangers:
whatever the job is, its event fits a body, and ending a job never fails for want of room."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.domain.adapter import FileEntry
from app.domain.job import Job, JobStatus
from app.domain.webhook import EventType

OF_STATUS: Mapping[JobStatus, EventType] = {"succeeded": "job.succeeded", "failed": "job.failed"}
MAX_NAME_BYTES = 600  # as JSON, in which a character may take twelve
MAX_DETAIL_BYTES = 4000
MAX_REVISIONS = 8


def job_event_data(job: Job) -> dict[str, Any]:
    """The `data` of `job.succeeded` and `job.failed`."""
    return {
        "id": job.id,
        "kind": job.kind,
        "status": job.status,
        "adapter": job.adapter,
        "base_model": _name(job.base_model),
        "chat_model": _name(job.chat_model),
        "revisions": {
            _name(model): sha[:64] for model, sha in list(job.revisions.items())[:MAX_REVISIONS]
        },
        "created_at": _moment(job.created_at),
        "started_at": _moment(job.started_at),
        "finished_at": _moment(job.finished_at),
        "modules": {"done": job.modules_done, "total": job.modules_total},
        "result": _result(job),
        "fault": _fault(job),
        "links": _links(job),
    }


def _result(job: Job) -> dict[str, Any] | None:
    if job.result is None:
        return None
    report, archive = job.result.report, job.result.archive
    return {"report": _file(report), "archive": _file(archive), "part": job.result.part}


def _file(file: FileEntry | None) -> dict[str, Any] | None:
    return None if file is None else {"sha256": file.sha256, "size_bytes": file.size_bytes}


def _fault(job: Job) -> dict[str, str] | None:
    if job.fault is None:
        return None
    detail = cut(job.fault.detail, MAX_DETAIL_BYTES)
    return {"code": job.fault.code, "title": job.fault.title, "detail": detail}


def _links(job: Job) -> dict[str, str]:
    own = f"/v1/jobs/{job.id}"
    return {"self": own, "report": f"{own}/report"} if job.result else {"self": own}


def _moment(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _name(text: str | None) -> str | None:
    return None if text is None else cut(text, MAX_NAME_BYTES)


def cut(text: str, most_bytes: int) -> str:
    """As much of a text's beginning as takes at most `most_bytes` in JSON."""
    if len(json.dumps(text)) <= most_bytes:
        return text
    low, high = 0, min(len(text), most_bytes)
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(json.dumps(text[:middle] + "...")) <= most_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low] + "..."
