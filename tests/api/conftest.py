"""What measuring jobs may name, kept by the service that the tests talk to."""

import json
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.domain.adapter import CONFIG_FILE
from app.domain.errors import WorkerFault
from app.domain.job import Fault, Job, JobResult
from app.domain.salora import PartModule
from app.intake.checkpoint import read_checkpoint
from app.storage.records import SqlRecords
from tests.factory import World, make_world
from tests.samples import a_job, a_part, an_adapter, entry_of
from tests.service import Service
from tests.uploads import parts

JSONL = {"Content-Type": "application/jsonl"}
PROMPTS = {"responses": "optional"}
REPORT, ARCHIVE = entry_of(b"report"), entry_of(b"archive")


def upload_rows(http: httpx.Client, *rows: dict[str, Any], **query: str) -> dict[str, Any]:
    raw = "\n".join(map(json.dumps, rows)).encode()
    answer = http.post("/v1/datasets", content=raw, headers=JSONL, params=query)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def end(records: SqlRecords, job: Job, result: JobResult | None, *, failed: bool = False) -> Job:
    """The queue never hears of such a job, so no worker takes it from the test."""
    held = claimed(records, job)
    if failed:
        fault = Fault.of(WorkerFault(kind="ValueError"))
        return records.finish(job.id, fence=held.fence, status="failed", fault=fault)
    return records.finish(job.id, fence=held.fence, status="succeeded", result=result)


def claimed(records: SqlRecords, job: Job) -> Job:
    """Held by nobody for as long as the tests go on."""
    records.add_job(job, None)
    held = records.claim(job.id, lease_s=3600)
    assert held is not None
    return held


def marked(adapter: Path, folder: Path) -> Path:
    """As it is saved while SaLoRA is attached."""
    shutil.copytree(adapter, folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "salora_kit": "salora_kit"}))
    return folder


@pytest.fixture(scope="module")
def named(
    service: Service,
    http: httpx.Client,
    llama_world: World,
    model_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Ids by what they stand for."""
    folder = tmp_path_factory.mktemp("adapters")
    sent = {
        "adapter": llama_world.adapter,
        "other_adapter": make_world(folder / "gpt2", "gpt2").adapter,
        "marked_adapter": marked(llama_world.adapter, folder / "marked"),
    }
    uploaded = {
        name: http.post("/v1/adapters", files=parts(path)).json() for name, path in sent.items()
    }
    prompts = upload_rows(http, {"prompt": uuid.uuid4().hex}, **PROMPTS)
    rows = ({"prompt": uuid.uuid4().hex, "response": "r"}, {"prompt": "p"})
    return {
        **{name: answer["id"] for name, answer in uploaded.items()},
        "prompts": prompts["id"],
        "more_prompts": upload_rows(http, {"prompt": uuid.uuid4().hex}, **PROMPTS)["id"],
        "half": upload_rows(http, *rows, **PROMPTS)["id"],
        "answered": upload_rows(http, rows[0])["id"],
        "more_answered": upload_rows(http, rows[0], rows[0])["id"],
        **kept_jobs(service),
        **kept_modules(service, model_root, uploaded["adapter"]["modules"]),
    }


def kept_jobs(service: Service) -> dict[str, str]:
    adapter = an_adapter(base_model_name="org/chat")
    with service.stores() as (records, _):
        records.add_adapter(adapter)
        jobs = {
            "patched": end(records, a_job(adapter), JobResult(REPORT, ARCHIVE)),
            "scored": end(records, a_job(adapter, kind="score"), JobResult(REPORT, None)),
            "failed": end(records, a_job(adapter), None, failed=True),
            "running": claimed(records, a_job(adapter)),
        }
        theirs = records.of("another")
        theirs.add_adapter(adapter)
        jobs["foreign"] = end(theirs, a_job(adapter), JobResult(REPORT, ARCHIVE))
    return {name: job.id for name, job in jobs.items()}


def kept_modules(
    service: Service, model_root: Path, modules: list[dict[str, Any]]
) -> dict[str, str]:
    digest = read_checkpoint(model_root / "chat", field="", model="").digest
    fitting = tuple(PartModule(m["module"], m["d_out"], m["d_in"], m["rank"]) for m in modules)
    made = {
        "safety_module": {"modules": fitting},
        "other_safety_module": {"modules": fitting, "chat_digest": "1" * 64},
        "wide_safety_module": {"modules": (replace(fitting[0], d_out=1),)},
    }
    of_chat: dict[str, Any] = {"chat_model": "chat", "chat_digest": digest}
    with service.stores() as (records, _):
        return {
            name: records.add_part(a_part(**{**of_chat, **changes})).id
            for name, changes in made.items()
        }
