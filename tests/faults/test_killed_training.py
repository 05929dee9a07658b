"""Trainings whose worker is killed or told to stop: they go on from their last checkpoint."""

import json
import signal
import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from safetensors.torch import load
from torch import Tensor

from app.domain.adapter import REPORT_FILE, WEIGHTS_FILE
from tests.faults.checks import assert_one_end
from tests.faults.conftest import MakeSite
from tests.faults.processes import Site, child_of, until
from tests.jsonl import as_jsonl
from tests.workers.salora_world import refusals, task

SAME = 1e-6  # absolute, of the exported A and B: the same steps in the same order
CHECKPOINT_EVERY, STEPS = 20, 240
FOR_EVER_S = 600


@dataclass
class Trainings:
    """A site that has a kit, and trains with it."""

    site: Site
    kit: str
    dataset: str

    def submit(self) -> str:
        body = {"kind": "salora_train", "kit": self.kit, "dataset": self.dataset, "epochs": 24,
                "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": CHECKPOINT_EVERY,
                "max_length": 32}  # fmt: skip
        return submitted(self.site, **body)

    def await_checkpoint(self, job: str) -> None:
        until(lambda: self.site.job(job).checkpoint, "there is a checkpoint")

    def result(self, job: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        ended = self.site.await_end(job)
        assert ended.status == "succeeded", ended.fault
        assert ended.checkpoint is None
        assert_one_end(self.site, ended)
        answer = self.site.http.get(f"/v1/jobs/{job}/adapter")
        with zipfile.ZipFile(BytesIO(answer.content)) as packed:
            return load(packed.read(WEIGHTS_FILE)), json.loads(packed.read(REPORT_FILE))


def submitted(site: Site, **body: Any) -> str:
    answer = site.http.post("/v1/jobs", json={"chat_model": "talk", **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def prepared(site: Site) -> Trainings:
    """With an API and a worker."""
    site.start_worker()
    site.start_api()
    sent = {"Content-Type": "application/jsonl"}
    safety, data = (
        site.http.post("/v1/datasets", content=as_jsonl(rows), headers=sent).json()["id"]
        for rows in (refusals(), task(40))
    )
    made = submitted(site, kind="safety_module", dataset=safety, rank=6, max_length=32)
    result = site.await_end(made).result
    assert result
    kit = submitted(site, kind="salora_init", safety_module=result.part, rank=4, max_length=32)
    result = site.await_end(kit).result
    assert result
    assert result.part
    return Trainings(site, result.part, data)


@pytest.fixture
def trainings(make_site: MakeSite) -> Trainings:
    return prepared(make_site())


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert float((one[name] - two[name]).abs().max()) <= SAME, name


def kill_after_another_checkpoint(site: Site, job: str, seen: int) -> int:
    """The checkpoint's step."""

    def further() -> int | None:
        kept = site.job(job).checkpoint
        return kept.step if kept and kept.step > seen else None

    step = until(further, "there is another checkpoint")
    until(lambda: child_of(site.workers[0]), "there is a child").kill()
    return step


def test_a_training_that_is_killed_three_times_ends_as_one_that_was_left_alone(
    trainings: Trainings,
) -> None:
    """And is not given up: each new checkpoint shows that it is not the job that kills."""
    site, job, steps = trainings.site, trainings.submit(), [0]
    for _ in range(3):
        steps.append(kill_after_another_checkpoint(site, job, steps[-1]))
    killed, report = trainings.result(job)
    assert report["training"]["resumed_from"] >= steps[-1] >= 3 * CHECKPOINT_EVERY
    assert [step["step"] for step in report["training"]["curve"]] == list(range(1, STEPS + 1))
    left_alone, undisturbed = trainings.result(trainings.submit())
    assert undisturbed["training"]["resumed_from"] is None
    assert_same(killed, left_alone)
    losses = [[s["loss"] for s in r["training"]["curve"]] for r in (report, undisturbed)]
    assert losses[0] == pytest.approx(losses[1], abs=SAME)


def test_a_training_whose_worker_is_told_to_stop_goes_on_at_the_step_it_was_at(
    make_site: MakeSite,
) -> None:
    trainings = prepared(make_site(lease_s=FOR_EVER_S, drain_s=0))
    site = trainings.site
    job = trainings.submit()
    site.await_module(job, done=5)  # before its first checkpoint
    site.workers[0].send_signal(signal.SIGTERM)
    assert site.workers[0].wait(30) == 0
    stopped = site.job(job)
    assert stopped.status == "queued"
    assert stopped.checkpoint
    assert stopped.checkpoint.step >= 5
    site.start_worker()
    _, report = trainings.result(job)
    assert report["training"]["resumed_from"] == stopped.checkpoint.step
