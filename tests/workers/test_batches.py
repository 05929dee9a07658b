"""Several real jobs in one pass, against the same ones one by one; and workers side by side."""

import asyncio
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from app.config import Settings
from app.domain.adapter import WEIGHTS_FILE
from app.domain.job import Job, JobKind
from app.domain.method import Method, Selection
from app.intake.manifest import read_manifest
from app.jobs.adapters import accept_adapter
from app.jobs.cancel import cancel
from app.jobs.retrieve import read_whole
from app.storage import migrate
from tests.factory import World, save_adapter
from tests.reports import TOLERANCE, assert_alike, wherever_from
from tests.samples import a_job
from workers.runtime import Runtime, make_runtime

ALL = Selection("all", None)
EVERYTHING = Method(select=ALL)

WORK_WHEN_TOLD = """
import sys
from workers.runtime import runtime
worker = runtime()
print("ready", flush=True)
sys.stdin.readline()
for job in sys.argv[1:]:
    worker.run(job)
"""


@dataclass
class Bench:
    """A worker's runtime on a data folder of its own, without the worker."""

    runtime: Runtime
    data: Path
    adapters: dict[str, str] = field(default_factory=dict)

    def accept(self, folder: Path) -> Any:
        stored, _ = accept_adapter(
            folder,
            read_manifest(folder),
            records=self.runtime.desk.records,
            artifacts=self.runtime.artifacts,
        )
        return stored

    def submit(self, folder: Path, method: Method = EVERYTHING, kind: JobKind = "patch") -> Job:
        job = a_job(
            self.accept(folder), base_model="base", chat_model="chat", method=method, kind=kind
        )
        return self.runtime.desk.records.add_job(job, None)

    def job(self, job: Job) -> Job:
        return self.runtime.desk.records.job(job.id)

    def report(self, job: Job) -> dict[str, Any]:
        """Without what may differ: where the alignments came from."""
        result = self.job(job).result
        assert result
        return wherever_from(json.loads(read_whole(result.report, self.runtime.artifacts)))

    def weights(self, job: Job) -> dict[str, Tensor]:
        result = self.job(job).result
        assert result
        assert result.archive
        archive = io.BytesIO(read_whole(result.archive, self.runtime.artifacts))
        with zipfile.ZipFile(archive) as packed:
            return load(packed.read(WEIGHTS_FILE))

    def events(self, job: Job) -> list[tuple[str, Any]]:
        found = asyncio.run(self.runtime.desk.events.read(job.id, after="0", block_s=0))
        return [(event.name, event.data.get("done")) for event in found]


def settings_of(data: Path, world: World, redis_url: str) -> dict[str, Any]:
    return {
        "data_dir": data,
        "model_root": world.base.parent,
        "redis_url": redis_url,
        "threads": 1,
        "reconcile_every_s": 1,
    }


def a_bench(data: Path, world: World, redis_url: str, **changes: Any) -> Bench:
    settings = Settings(**{**settings_of(data, world, redis_url), **changes})
    migrate.upgrade(settings.resolved_database_url)
    return Bench(make_runtime(settings), data)


@pytest.fixture
def together(tmp_path: Path, llama_world: World, redis_url: str) -> Bench:
    return a_bench(tmp_path / "together", llama_world, redis_url)


@pytest.fixture
def apart(tmp_path: Path, llama_world: World, redis_url: str) -> Bench:
    return a_bench(tmp_path / "apart", llama_world, redis_url, coalesce=1)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, llama_world: World) -> Mapping[str, Path]:
    """Adapters of one chat model that differ in all that a batch has to keep apart."""
    torch.manual_seed(3)
    folder, model = tmp_path_factory.mktemp("adapters"), llama_world.chat_model()
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "wide": {"r": 16, "target_modules": ["q_proj", "up_proj"]},
        "one module": {"r": 2, "target_modules": ["q_proj"], "layers_to_transform": [0]},
        "half": {"dtype": torch.bfloat16, "use_rslora": True},
        "nan": {"target_modules": ["v_proj", "down_proj"]},
    }
    for name, kind in kinds.items():
        save_adapter(model, folder / name, "llama", **kind)
    tensors = load_file(folder / "nan" / WEIGHTS_FILE)
    key = next(key for key in sorted(tensors) if "layers.1" in key and "lora_B" in key)
    tensors[key][0, 0] = torch.nan
    save_file(tensors, folder / "nan" / WEIGHTS_FILE, metadata={"format": "pt"})
    return {name: folder / name for name in kinds}


def submitted(bench: Bench, adapters: Mapping[str, Path]) -> dict[str, Job]:
    subspace = Method("subspace", select=ALL)
    return {
        "plain": bench.submit(adapters["plain"]),
        "wide": bench.submit(adapters["wide"]),
        "one module": bench.submit(adapters["one module"]),
        "half": bench.submit(adapters["half"]),
        "nan": bench.submit(adapters["nan"]),
        "another projector": bench.submit(adapters["plain"], subspace),
        "another selection": bench.submit(adapters["plain"], Method(select=Selection("count", 2))),
        "score": bench.submit(adapters["wide"], kind="score"),
        "the same again": bench.submit(adapters["plain"]),
    }


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        # of the whole tensor; half precision may fall to the other side of one rounding
        allowed = TOLERANCE if tensor.dtype == torch.float32 else 2**-8
        assert tensor.dtype == other[name].dtype
        assert torch.linalg.norm(tensor.double() - other[name].double()) <= (
            allowed * torch.linalg.norm(other[name].double())
        )


def test_jobs_in_one_pass_give_what_each_gives_alone(
    together: Bench, apart: Bench, adapters: Mapping[str, Path]
) -> None:
    batch, single = submitted(together, adapters), submitted(apart, adapters)
    together.runtime.run(batch["plain"].id)
    for job in single.values():
        apart.runtime.run(job.id)
    for name, job in batch.items():
        one, other = together.job(job), apart.job(single[name])
        assert (one.status, one.fault) == (other.status, other.fault)
        assert (one.attempts, one.modules_done) == (1, other.modules_done)
        assert together.events(job) == apart.events(single[name])
        if one.status == "succeeded":
            assert_alike(together.report(job), apart.report(single[name]))
        if one.status == "succeeded" and one.kind == "patch":
            assert_close(together.weights(job), apart.weights(single[name]))
    assert {name for name, job in batch.items() if together.job(job).status == "failed"} == {"nan"}
    assert list((together.data / "staging").iterdir()) == []


def test_a_job_cancelled_half_way_ends_alone(together: Bench, adapters: Mapping[str, Path]) -> None:
    desk = together.runtime.desk
    jobs = [together.submit(adapters[name]) for name in ("plain", "plain", "wide")]
    publish = desk.events.publish

    def publish_and_cancel(job_id: str, name: str, data: Mapping[str, object]) -> None:
        publish(job_id, name, data)
        if job_id == jobs[1].id and data.get("done") == 2:
            cancel(job_id, records=desk.records, events=desk.events)

    desk.events.publish = publish_and_cancel  # type: ignore[method-assign]
    together.runtime.run(jobs[0].id)
    assert [together.job(job).status for job in jobs] == ["succeeded", "cancelled", "succeeded"]
    assert together.job(jobs[1]).modules_done == 2


def test_an_alignment_is_cancelled_between_two_modules(
    together: Bench, adapters: Mapping[str, Path]
) -> None:
    desk = together.runtime.desk
    job = replace(together.job(together.submit(adapters["plain"])), id="a", kind="alignment")
    desk.records.add_job(replace(job, adapter=None), None)
    publish = desk.events.publish

    def publish_and_cancel(job_id: str, name: str, data: Mapping[str, object]) -> None:
        publish(job_id, name, data)
        if data.get("done") == 3:
            cancel(job_id, records=desk.records, events=desk.events)

    desk.events.publish = publish_and_cancel  # type: ignore[method-assign]
    together.runtime.run("a")
    ended = together.job(job)
    assert (ended.status, ended.modules_done, ended.modules_total) == ("cancelled", 3, 14)
    assert ended.result is None


def test_patches_note_what_they_used_of_the_cache(
    together: Bench, adapters: Mapping[str, Path]
) -> None:
    for _ in range(2):
        together.runtime.run(together.submit(adapters["plain"]).id)
    (pair,) = together.runtime.desk.records.alignments(limit=9, cursor=None).items
    assert (pair.usage.modules, pair.usage.hits, pair.usage.misses) == (6, 6, 6)


def test_a_job_that_is_through_ends_before_the_others(
    together: Bench, adapters: Mapping[str, Path]
) -> None:
    desk = together.runtime.desk
    long, short = together.submit(adapters["plain"]), together.submit(adapters["one module"])
    told, publish = [], desk.events.publish

    def noting(job_id: str, name: str, data: Mapping[str, object]) -> None:
        told.append((job_id, name))
        publish(job_id, name, data)

    desk.events.publish = noting  # type: ignore[method-assign]
    together.runtime.run(long.id)
    ended = told.index((short.id, "succeeded"))
    assert (long.id, "module") in told[ended:]


def test_a_model_that_is_gone_fails_every_job_with_its_reason(
    tmp_path: Path, llama_world: World, redis_url: str, adapters: Mapping[str, Path]
) -> None:
    bench = a_bench(tmp_path, llama_world, redis_url, model_root=tmp_path / "nothing")
    jobs = [bench.submit(adapters["plain"]) for _ in range(2)]
    bench.runtime.run(jobs[0].id)
    faults = [bench.job(job).fault for job in jobs]
    assert [fault and fault.code for fault in faults] == ["unknown-model"] * 2


def test_two_workers_at_once_do_each_job_once(
    tmp_path: Path, llama_world: World, redis_url: str, adapters: Mapping[str, Path]
) -> None:
    bench = a_bench(tmp_path, llama_world, redis_url, coalesce=4)
    jobs = [bench.submit(adapters[name]) for name in ("plain", "wide", "half", "one module") * 3]
    given = {**settings_of(tmp_path, llama_world, redis_url), "coalesce": 4}
    named = {f"ADAPTER_SAFETY_{name.upper()}": str(value) for name, value in given.items()}
    command = [sys.executable, "-c", WORK_WHEN_TOLD, *(job.id for job in jobs)]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **named})
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.communicate("go\n", timeout=120)
    ended = [bench.job(job) for job in jobs]
    assert {(job.status, job.attempts, job.fence) for job in ended} == {("succeeded", 1, 1)}
    for first, again in zip(jobs[:4], jobs[4:8], strict=True):
        assert_close(bench.weights(first), bench.weights(again))
