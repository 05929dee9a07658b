"""Evaluations whose worker is killed go on from what was told; a gate holds a patch that harms."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.demo.safety_world.world import SafetyWorld
from tests.faults.checks import assert_one_end
from tests.faults.processes import QUICK, Site, child_of, until
from tests.servers import RedisServer
from tests.small_talk import ADAPTER
from tests.uploads import parts

WITHIN_S = 150.0  # because each new child of a worker imports transformers first
SHORT = {"max_new_tokens": 8, "max_length": 48}


@pytest.fixture
def site(tmp_path: Path, small_talk: SafetyWorld, own_redis: RedisServer) -> Iterator[Site]:
    """With an API and a worker, where `base` and `chat` are the small talk's."""
    data, database = tmp_path / "data", f"sqlite:///{tmp_path / 'records.sqlite3'}"
    (data / "staging").mkdir(parents=True)
    with ExitStack() as stack:
        made = Site(data, small_talk.chat.parent, own_redis, database, dict(QUICK))
        stack.callback(made.close)
        made.start_worker()
        made.start_api()
        yield made


@pytest.fixture
def named(site: Site, small_talk: SafetyWorld) -> dict[str, str]:
    """Uploaded: the adapter and three data sets."""
    adapter = site.http.post("/v1/adapters", files=parts(small_talk.adapter(ADAPTER))).json()["id"]
    sent = {"Content-Type": "application/jsonl"}
    sets = {
        role: site.http.post("/v1/datasets", content=path.read_bytes(), headers=sent).json()["id"]
        for role, path in small_talk.split("tuning").items()
    }
    return {"adapter": adapter, **sets}


def submit(site: Site, **body: Any) -> str:
    answer = site.http.post("/v1/jobs", json={"chat_model": "chat", **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def result(site: Site, job: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Report and transcripts."""
    ended = site.await_end(job, WITHIN_S)
    assert ended.status == "succeeded", ended.fault
    assert_one_end(site, ended)
    told = site.http.get(f"/v1/jobs/{job}/transcripts")
    assert told.status_code == 200, told.text
    report: dict[str, Any] = site.http.get(f"/v1/jobs/{job}/report").json()
    return report, [json.loads(line) for line in told.text.splitlines()]


def kept_rows(site: Site, job: str, more_than: int) -> Callable[[], int | None]:
    def further() -> int | None:
        kept = site.job(job).checkpoint
        return kept.step if kept and kept.step > more_than else None

    return further


def test_an_evaluation_that_is_killed_twice_ends_as_one_that_was_left_alone(
    site: Site, named: dict[str, str]
) -> None:
    sets = {role: named[role] for role in ("harmful", "benign", "task")}
    adapters = [{"name": name, "adapter": named["adapter"]} for name in ("one", "other")]
    body = {"kind": "evaluate", **sets, "adapters": adapters, **SHORT}
    job, rows = submit(site, **body), 0
    for _ in range(2):
        rows = until(kept_rows(site, job, rows), "more rows are kept", WITHIN_S)
        until(lambda: child_of(site.workers[0]), "there is a child").kill()
    killed = result(site, job)
    left_alone = result(site, submit(site, **body))
    assert killed[0] == left_alone[0]
    assert sorted(map(str, killed[1])) == sorted(map(str, left_alone[1]))
    done = [event["done"] for event in events(site, job, "rows")]
    assert done == sorted(done)  # what was kept is never asked again


def events(site: Site, job: str, name: str) -> list[dict[str, Any]]:
    with site.http.stream("GET", f"/v1/jobs/{job}/events") as answer:
        lines = list(answer.iter_lines())
    found = []
    for event, data in pairwise(lines):
        if event == f"event: {name}" and data.startswith("data: "):
            found.append(json.loads(data.removeprefix("data: ")))
    return found


@pytest.mark.parametrize(("method", "verdict"), [("prune", "review"), ("scale", "patched")])
def test_a_gate_lets_no_patch_pass_that_was_made_worse_on_purpose(
    site: Site, named: dict[str, str], method: str, verdict: str
) -> None:
    """Without its update the adapter is worse at its task on each row; with all of it, on none."""
    gate = {role: named[role] for role in ("harmful", "benign", "task")}
    asked = {"name": method, "select": {"by": "all"}} | (
        {"factor": 1.0} if method == "scale" else {}
    )
    body = {"base_model": "base", "adapter": named["adapter"], "method": asked}
    job = submit(site, **body, require="no_worse", gate={**gate, **SHORT, "utility": "loss"})
    report, told = result(site, job)
    assert report["verdict"] == verdict
    said = [text for text in report["warnings"] if "made the adapter worse" in text]
    assert bool(said) is (verdict == "review")
    subjects = {row["subject"] for row in report["evaluation"]["table"]}
    assert subjects == {"chat", "original", "patched"}
    assert {row["subject"] for row in told} == subjects
