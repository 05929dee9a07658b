"""Jobs whose models are named by their ids on a hub: the same result as from folders, and what a
job does where the hub does not give what it should."""

import asyncio
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.domain.adapter import WEIGHTS_FILE, StoredAdapter
from app.domain.errors import ModulesNotInModel
from app.domain.evaluation import EvaluateRecipe, Judging, Sets, Subject
from app.domain.job import Job
from app.domain.method import Method, Selection
from app.domain.salora import Encoding
from app.intake.manifest import read_manifest
from app.jobs.adapters import accept_adapter
from app.jobs.cancel import cancel
from app.jobs.datasets import accept_dataset
from app.jobs.import_adapter import Importer
from app.jobs.retrieve import read_whole
from app.storage import migrate
from app.storage.hub.reader import ClientsHub
from tests.hub.server import LocalHub
from tests.hub_models import ADAPTER, BASE, CHAT, HubWorld, publish, put, shorten_pauses
from tests.samples import a_job, a_measure_job
from workers.output import file_entry
from workers.runtime import Runtime, make_runtime

ALL = Method(select=Selection("all", None))


@pytest.fixture
def commits(local_hub: LocalHub, hub_world: HubWorld) -> dict[str, str]:
    return publish(local_hub, hub_world)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


@pytest.fixture
def worker(tmp_path: Path, hub_world: HubWorld, redis_url: str) -> Iterator[Runtime]:
    """A worker's runtime, without the worker: the folders `local/*`, and the hub."""
    settings = Settings(
        data_dir=tmp_path / "data", model_root=hub_world.root, redis_url=redis_url, threads=1
    )
    migrate.upgrade(settings.resolved_database_url)
    made = make_runtime(settings)
    with closing(made.desk.records):
        yield made


def accepted(worker: Runtime, folder: Path) -> StoredAdapter:
    stored, _ = accept_adapter(
        folder, read_manifest(folder), records=worker.desk.records, artifacts=worker.artifacts
    )
    return stored


def imported(worker: Runtime) -> StoredAdapter:
    importer = Importer(
        hub=ClientsHub(()),
        records=worker.desk.records,
        artifacts=worker.artifacts,
        staging_dir=worker.staging_dir,
        max_upload_bytes=1 << 30,
    )
    return importer.run(ADAPTER, None).adapter


def submitted(worker: Runtime, adapter: StoredAdapter, **changes: Any) -> Job:
    given = {"base_model": BASE, "chat_model": CHAT, "method": ALL, **changes}
    return worker.desk.records.add_job(a_job(adapter, **given), None)


def ended(worker: Runtime, job: Job) -> Job:
    worker.run(job.id)
    return worker.desk.records.job(job.id)


def report_of(worker: Runtime, job: Job) -> dict[str, Any]:
    assert job.result is not None, job.fault
    found: dict[str, Any] = json.loads(read_whole(job.result.report, worker.artifacts))
    return found


def weights_of(worker: Runtime, job: Job) -> bytes:
    assert job.result is not None, job.fault
    assert job.result.archive is not None
    with zipfile.ZipFile(io.BytesIO(read_whole(job.result.archive, worker.artifacts))) as packed:
        return packed.read(WEIGHTS_FILE)


def events_of(worker: Runtime, job: Job) -> list[tuple[str, Any]]:
    found = asyncio.run(worker.desk.events.read(job.id, after="0", block_s=0))
    return [(event.name, event.data) for event in found]


@pytest.mark.parametrize("projector", ["approximate", "subspace"])
def test_a_patch_by_ids_gives_the_same_bytes_as_from_folders_and_reads_only_what_it_needs(
    worker: Runtime,
    local_hub: LocalHub,
    commits: dict[str, str],
    hub_world: HubWorld,
    projector: Any,
) -> None:
    method = Method(projector, 0.9 if projector == "subspace" else None, select=ALL.select)
    there = ended(worker, submitted(worker, imported(worker), method=method))
    here = accepted(worker, hub_world.adapter)
    names = {"base_model": "local/base", "chat_model": "local/chat"}
    local = ended(worker, submitted(worker, here, method=method, **names))
    assert (there.status, local.status) == ("succeeded", "succeeded"), there.fault
    assert there.adapter == local.adapter
    assert weights_of(worker, there) == weights_of(worker, local)
    for model, folder in ((BASE, hub_world.base), (CHAT, hub_world.chat)):
        share = local_hub.log.bytes_of(model) / hub_world.weights_bytes(folder)
        assert share < 0.2  # q_proj and v_proj are 0.136 of the weights, headers and index 0.02


def test_the_commits_are_kept_in_the_job_and_in_the_report(
    worker: Runtime, local_hub: LocalHub, commits: dict[str, str]
) -> None:
    job = ended(worker, submitted(worker, imported(worker), base_model=f"{BASE}@main"))
    assert job.revisions == {f"{BASE}@main": commits[BASE], CHAT: commits[CHAT]}
    report = report_of(worker, job)
    assert report["base_model"]["id"] == f"{BASE}@main"
    assert report["base_model"]["revision"] == commits[BASE]
    assert report["chat_model"]["revision"] == commits[CHAT]


def test_the_bytes_that_come_are_told(
    worker: Runtime, local_hub: LocalHub, commits: dict[str, str]
) -> None:
    job = ended(worker, submitted(worker, imported(worker)))
    told = [data for name, data in events_of(worker, job) if name == "download"]
    assert {data["model"] for data in told} == {BASE, CHAT}
    assert all(0 <= data["done_bytes"] <= data["total_bytes"] for data in told)
    assert told[-1]["done_bytes"] == told[-1]["total_bytes"] > 0


def test_a_second_attempt_takes_the_same_commits_though_the_branches_have_moved(
    worker: Runtime, local_hub: LocalHub, commits: dict[str, str]
) -> None:
    job = submitted(worker, imported(worker))
    local_hub.faults.refuse(503, times=None, path=f"/{BASE}/resolve/*/model-*")
    assert ended(worker, job).status == "queued"
    local_hub.faults.clear()
    for model in (BASE, CHAT):
        local_hub.commit(model, {"config.json": b"{}"})
    again = ended(worker, job)
    assert again.status == "succeeded", again.fault
    assert again.revisions == {BASE: commits[BASE], CHAT: commits[CHAT]}


def test_a_hub_that_is_down_costs_a_job_nothing(
    worker: Runtime, local_hub: LocalHub, commits: dict[str, str]
) -> None:
    job = submitted(worker, imported(worker))
    local_hub.faults.down.set()
    assert ended(worker, job).status == "queued"
    local_hub.faults.down.clear()
    assert ended(worker, job).status == "succeeded"


Break = Callable[[LocalHub, HubWorld], None]


def without_access(hub: LocalHub, _: HubWorld) -> None:
    hub.delete(CHAT)
    hub.create(CHAT, gated_to=[])
    hub.commit(CHAT, {"config.json": b"{}", "model.safetensors": b"x" * 100})


def without_it(hub: LocalHub, _: HubWorld) -> None:
    hub.delete(BASE)


def of_another_kind(hub: LocalHub, world: HubWorld) -> None:
    hub.delete(CHAT)
    put(hub, CHAT, world.base)
    hub.commit(CHAT, {"config.json": b'{"model_type": "gpt2"}'})


def the_same_twice(hub: LocalHub, _: HubWorld) -> None:
    """Which is done by the names of the job."""


@pytest.mark.parametrize(
    ("spoil", "changes", "code", "field"),
    [
        (without_access, {}, "repository-gated", "chat_model"),
        (without_it, {}, "repository-not-found", "base_model"),
        (of_another_kind, {}, "checkpoint-refused", "chat_model"),
        (the_same_twice, {"chat_model": f"{BASE}@main"}, "invalid-field", "chat_model"),
        (the_same_twice, {"base_model": f"{BASE}@nowhere"}, "revision-not-found", "base_model"),
    ],
    ids=["gated", "missing", "another architecture", "one model twice", "no such revision"],
)
def test_what_could_not_be_checked_at_the_submit_ends_the_job_with_the_same_problem(
    worker: Runtime,
    local_hub: LocalHub,
    commits: dict[str, str],
    hub_world: HubWorld,
    spoil: Break,
    changes: dict[str, str],
    code: str,
    field: str,
) -> None:
    adapter = imported(worker)
    spoil(local_hub, hub_world)
    job = ended(worker, submitted(worker, adapter, **changes))
    assert job.status == "failed"
    assert job.fault is not None
    assert (job.fault.code, job.fault.facts["field"]) == (code, field)


def test_an_adapter_of_another_model_is_told_by_its_modules(
    worker: Runtime, local_hub: LocalHub, commits: dict[str, str], llama_world: Any
) -> None:
    other = accepted(worker, llama_world.adapter)
    job = ended(worker, submitted(worker, other))
    assert job.status == "failed"
    assert job.fault is not None
    assert job.fault.code in ("adapter-shapes-differ", ModulesNotInModel.code)


def test_a_cancelled_job_reads_no_further(
    worker: Runtime, local_hub: LocalHub, commits: dict[str, str]
) -> None:
    job = submitted(worker, imported(worker))
    local_hub.log.clear()
    records = worker.desk.records
    claimed = records.claim(job.id, lease_s=0.0)
    assert claimed is not None
    cancel(job.id, records=records, events=worker.desk.events)
    assert ended(worker, job).status == "cancelled"
    assert local_hub.log.bytes_of(CHAT) == 0


def test_an_alignment_and_a_score_are_made_by_ids_too(
    worker: Runtime, local_hub: LocalHub, commits: dict[str, str], hub_world: HubWorld
) -> None:
    adapter = imported(worker)
    for kind in ("alignment", "score"):
        job = ended(worker, submitted(worker, adapter, kind=kind))
        assert job.status == "succeeded", job.fault
    whole = hub_world.weights_bytes(hub_world.chat)
    assert local_hub.log.bytes_of(CHAT) < 0.2 * whole


def test_an_evaluation_by_ids_reads_the_whole_model_and_its_tokenizer(
    worker: Runtime, local_hub: LocalHub, tmp_path: Path, small_talk: Any
) -> None:
    put(local_hub, "org/talk", small_talk.chat)
    records = worker.desk.records
    path = small_talk.data("harmful_tuning")
    dataset, _ = accept_dataset(
        path,
        file_entry(path),
        chat_model=None,
        responses="optional",
        records=records,
        artifacts=worker.artifacts,
        models=worker.models.folders,
    )
    subject = Subject("tuned", accepted(worker, small_talk.adapter("benign")).id)
    judging = Judging(max_new_tokens=4, encoding=Encoding(max_length=48))
    recipe = EvaluateRecipe(Sets(harmful=dataset.id), (subject,), judging)
    wanted = a_measure_job("evaluate", recipe, chat_model="org/talk")
    job = ended(worker, records.add_job(wanted, None))
    assert job.status == "succeeded", job.fault
    assert job.revisions == {"org/talk": local_hub.sha("org/talk")}
