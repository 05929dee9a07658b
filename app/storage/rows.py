"""Rows to domain nouns and back, field by field: nothing is pickled, nothing is guessed."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from app.domain.adapter import ListedAdapter, StoredAdapter, StoredModule
from app.domain.job import SALORA_KINDS, AnyRecipe, Fault, Job, JobKind, JobResult
from app.domain.method import Method, Selection
from app.storage.measure_rows import to_measure_recipe
from app.storage.salora_rows import (
    checkpoint_json,
    file_json,
    to_checkpoint,
    to_file,
    to_salora_recipe,
)

Json = dict[str, Any]

RESULT_FILES = ("report", "archive", "transcripts")


def adapter_values(adapter: StoredAdapter, tenant: str) -> Json:
    """The columns of an adapter, `seq` aside."""
    return {
        "tenant": tenant,
        "id": adapter.id,
        "created_at": adapter.created_at,
        "uploaded_at": adapter.created_at,
        "size_bytes": adapter.size_bytes,
        "files": {name: file_json(file) for name, file in adapter.files.items()},
        "summary": {
            "size_bytes": adapter.size_bytes,
            "modules": len(adapter.modules),
            "base_model_name": adapter.base_model_name,
        },
        "manifest": {
            "modules": [asdict(module) for module in adapter.modules],
            "dropped_keys": list(adapter.dropped_keys),
            "base_model_name": adapter.base_model_name,
            "peft_type": adapter.peft_type,
        },
    }


def to_adapter(row: Row[Any]) -> StoredAdapter:
    """The adapter in a row of `adapters`."""
    manifest = row.manifest
    return StoredAdapter(
        id=row.id,
        created_at=row.created_at,
        files={name: to_file(file) for name, file in row.files.items()},
        modules=tuple(StoredModule(**module) for module in manifest["modules"]),
        dropped_keys=tuple(manifest["dropped_keys"]),
        base_model_name=manifest["base_model_name"],
        peft_type=manifest["peft_type"],
    )


def to_listed_adapter(row: Row[Any]) -> ListedAdapter:
    """The short form in a row of `adapters`, read without its manifest."""
    return ListedAdapter(id=row.id, created_at=row.created_at, **row.summary)


def job_values(job: Job, *, queued_at: datetime) -> Json:
    """The columns of a job, `seq` and `lease_until` aside."""
    return {
        "id": job.id,
        "kind": job.kind,
        "status": job.status,
        "tenant": job.tenant,
        "adapter": job.adapter,
        "recipe": None if job.recipe is None else asdict(job.recipe),
        "base_model": job.base_model,
        "chat_model": job.chat_model,
        "method": method_json(job.method),
        "modules": None if job.modules is None else list(job.modules),
        "created_at": job.created_at,
        "queued_at": queued_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "releases": 0,
        "attempts": job.attempts,
        "fence": job.fence,
        "modules_done": job.modules_done,
        "modules_total": job.modules_total,
        "cancel_requested": job.cancel_requested,
        "fault": fault_json(job.fault),
        "result": result_json(job.result),
        "checkpoint": checkpoint_json(job.checkpoint),
        "revisions": dict(job.revisions) or None,
        "request_id": job.request_id,
        "traceparent": job.traceparent,
    }


def to_job(row: Row[Any]) -> Job:
    """The job in a row of `jobs`."""
    return Job(
        id=row.id,
        kind=row.kind,
        status=row.status,
        tenant=row.tenant,
        adapter=row.adapter,
        base_model=row.base_model,
        chat_model=row.chat_model,
        method=to_method(row.method),
        modules=None if row.modules is None else tuple(row.modules),
        recipe=None if row.recipe is None else _to_recipe(row.kind, row.recipe),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        fence=row.fence,
        modules_done=row.modules_done,
        modules_total=row.modules_total,
        cancel_requested=row.cancel_requested,
        fault=None if row.fault is None else Fault(**row.fault),
        result=None if row.result is None else _to_result(row.result),
        checkpoint=None if row.checkpoint is None else to_checkpoint(row.checkpoint),
        revisions=row.revisions or {},
        request_id=row.request_id,
        traceparent=row.traceparent,
    )


def _to_recipe(kind: JobKind, value: Mapping[str, Any]) -> AnyRecipe:
    """The kind says which it is."""
    read = to_salora_recipe if kind in SALORA_KINDS else to_measure_recipe
    return read(kind, value)


def method_json(method: Method) -> Json:
    """A method as JSON; `to_method` is its inverse."""
    return asdict(method)


def to_method(value: Mapping[str, Any]) -> Method:
    """The method in `method_json`'s form; an older one knows no safety module."""
    return Method(
        name=value["name"],
        projector=value["projector"],
        energy=value["energy"],
        rank=value["rank"],
        select=Selection(by=value["select"]["by"], value=value["select"]["value"]),
        factor=value["factor"],
        rescale=value["rescale"],
        full_weights=value["full_weights"],
        safety_module=value.get("safety_module"),
    )


def fault_json(fault: Fault | None) -> Json | None:
    """A fault as JSON, its facts included."""
    if fault is None:
        return None
    facts = dict(fault.facts)
    return {"code": fault.code, "title": fault.title, "detail": fault.detail, "facts": facts}


def result_json(result: JobResult | None) -> Json | None:
    """A result as JSON: the files by digest and size."""
    if result is None:
        return None
    files = {name: getattr(result, name) for name in RESULT_FILES}
    return {
        **{name: None if file is None else file_json(file) for name, file in files.items()},
        "part": result.part,
    }


def _to_result(value: Mapping[str, Any]) -> JobResult:
    """An older one knows neither parts nor transcripts."""
    files = {name: value.get(name) for name in RESULT_FILES[1:]}
    return JobResult(
        report=to_file(value["report"]),
        part=value.get("part"),
        **{name: None if file is None else to_file(file) for name, file in files.items()},
    )
