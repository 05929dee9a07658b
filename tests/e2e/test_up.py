"""Black box: `adapter-safety up` as a process, driven with httpx alone."""

import io
import os
import signal
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.factory import World, perturb, save_adapter
from tests.service import Service, running, start
from tests.uploads import parts

SLOW = {"projector": "exact", "select": {"by": "all"}}


@pytest.fixture(scope="module")
def slow_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Forty modules of 512 x 512, which the exact projector needs some seconds for."""
    folder = tmp_path_factory.mktemp("slow")
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=512,
            intermediate_size=8,
            num_hidden_layers=10,
            num_attention_heads=4,
            num_key_value_heads=4,
        )
    )
    model.save_pretrained(folder / "base")
    perturb(model, 0.1)
    model.save_pretrained(folder / "chat")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    save_adapter(model, folder / "adapter", "llama", target_modules=targets)
    return World(folder / "base", folder / "chat", folder / "adapter", "llama")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, slow_world: World) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("up"), slow_world.base.parent) as service:
        yield service


@pytest.fixture(scope="module")
def client(up: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=up.url, timeout=60) as http:
        yield http


@pytest.fixture(scope="module")
def adapter(client: httpx.Client, slow_world: World) -> str:
    return client.post("/v1/adapters", files=parts(slow_world.adapter)).json()["id"]


def submit(client: httpx.Client, adapter: str, **headers: str) -> dict[str, Any]:
    body = {"adapter": adapter, "base_model": "base", "chat_model": "chat", "method": SLOW}
    answer = client.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def events(stream: httpx.Response) -> Iterator[tuple[str, str]]:
    """(id, name) of each event, read from the wire by hand."""
    found = {}
    for line in stream.iter_lines():
        if line:
            name, _, value = line.partition(":")
            found[name] = value.strip()
        elif "event" in found:
            yield found["id"], found["event"]
            found = {}


def follow(
    client: httpx.Client, job: str, until: Callable[[str, int], bool], last: str = ""
) -> list[tuple[str, str]]:
    headers = {"Last-Event-ID": last} if last else {}
    seen = []
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for event in events(stream):
            seen.append(event)
            if until(event[1], len(seen)):
                break
    return seen


def never(_: str, __: int) -> bool:
    return False


def test_a_job_is_followed_over_a_dropped_connection_and_downloaded_in_parts(
    client: httpx.Client, adapter: str
) -> None:
    key = uuid.uuid4().hex
    job = submit(client, adapter, **{"Idempotency-Key": key})["id"]
    first = follow(client, job, lambda _, count: count == 6)  # then we hang up
    assert submit(client, adapter, **{"Idempotency-Key": key})["id"] == job
    rest = follow(client, job, never, last=first[-1][0])
    names = [name for _, name in first + rest]
    assert names == ["queued", "running", *["module"] * 40, "succeeded"]
    path = f"/v1/jobs/{job}/adapter"
    half = 1000
    begin = client.get(path, headers={"Range": f"bytes=0-{half - 1}"})
    end = client.get(path, headers={"Range": f"bytes={half}-", "If-Range": begin.headers["etag"]})
    assert (begin.status_code, end.status_code) == (206, 206)
    with zipfile.ZipFile(io.BytesIO(begin.content + end.content)) as archive:
        assert archive.testzip() is None


def test_a_running_job_is_cancelled_between_two_modules(client: httpx.Client, adapter: str) -> None:
    job = submit(client, adapter)["id"]
    follow(client, job, lambda name, _: name == "module")
    assert client.delete(f"/v1/jobs/{job}").json()["cancel_requested"]
    assert follow(client, job, never)[-1][1] == "cancelled"
    ended = client.get(f"/v1/jobs/{job}").json()
    assert ended["status"] == "cancelled"
    assert ended["progress"]["done"] < 40
    assert client.get(f"/v1/jobs/{job}/adapter").status_code == 404


def test_a_queued_job_is_cancelled_at_once_and_never_runs(
    client: httpx.Client, adapter: str
) -> None:
    busy = submit(client, adapter)["id"]
    follow(client, busy, lambda name, _: name == "running")  # else the two would go together
    waiting = submit(client, adapter)["id"]
    assert client.get(f"/v1/jobs/{waiting}/report").status_code == 409
    assert client.delete(f"/v1/jobs/{waiting}").json()["status"] == "cancelled"
    client.delete(f"/v1/jobs/{busy}")
    assert follow(client, busy, never)[-1][1] == "cancelled"
    assert [name for _, name in follow(client, waiting, never)] == ["queued", "cancelled"]
    assert client.get(f"/v1/jobs/{waiting}").json()["attempts"] == 0


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_one_interrupt_stops_everything_and_the_data_is_there_next_time(
    tmp_path: Path, model_root: Path, llama_world: World
) -> None:
    service = start(tmp_path, model_root)
    sent = httpx.post(f"{service.url}/v1/adapters", files=parts(llama_world.adapter)).json()
    body = {"adapter": sent["id"], "base_model": "base", "chat_model": "chat"}
    job = httpx.post(f"{service.url}/v1/jobs", json=body, headers={"Prefer": "wait=50"}, timeout=60)
    assert job.json()["status"] == "succeeded"
    processes = service.children()
    assert len(processes) >= 4  # broker, worker and its child, API
    assert service.stop() == 0
    assert gone(processes)
    with running(tmp_path, model_root) as again:
        assert httpx.get(f"{again.url}/v1/jobs/{job.json()['id']}").json() == job.json()
        assert httpx.get(f"{again.url}{job.json()['links']['adapter']}").status_code == 200


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a watchdog does it, with its own test"
)
def test_a_killed_parent_leaves_nobody_behind(tmp_path: Path, model_root: Path) -> None:
    service = start(tmp_path, model_root)
    wait_for_worker(service)
    processes = service.children()
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.communicate()
    assert gone(processes)


def wait_for_worker(service: Service) -> None:
    """Until the worker's prefork child is there: the one case that a dead parent could leave."""
    deadline = time.monotonic() + 30
    while len(service.children()) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_outlives_a_worker_that_is_killed(tmp_path: Path, slow_world: World) -> None:
    """The worker's child is killed in the middle: the job runs again and ends once."""
    with (
        running(tmp_path, slow_world.base.parent, ADAPTER_SAFETY_LEASE_S="2") as service,
        httpx.Client(base_url=service.url, timeout=60) as http,
    ):
        sent = http.post("/v1/adapters", files=parts(slow_world.adapter)).json()["id"]
        job = submit(http, sent)["id"]
        follow(http, job, lambda name, _: name == "module")
        worker_child(service).kill()
        assert follow(http, job, never)[-1][1] == "succeeded"
        ended = http.get(f"/v1/jobs/{job}").json()
    assert (ended["status"], ended["attempts"]) == ("succeeded", 2)
    assert list((tmp_path / "staging").iterdir()) == []


def test_jobs_that_went_together_outlive_a_worker_that_is_killed(
    tmp_path: Path, slow_world: World
) -> None:
    """Three wait behind a first, so they go together; each then runs again, and ends once."""
    settings = {"ADAPTER_SAFETY_LEASE_S": "2", "ADAPTER_SAFETY_RECONCILE_EVERY_S": "1"}
    with (
        running(tmp_path, slow_world.base.parent, **settings) as service,
        httpx.Client(base_url=service.url, timeout=60) as http,
    ):
        sent = http.post("/v1/adapters", files=parts(slow_world.adapter)).json()["id"]
        first = submit(http, sent)["id"]
        follow(http, first, lambda name, _: name == "running")
        batch = [submit(http, sent)["id"] for _ in range(3)]
        for job in batch:
            follow(http, job, lambda name, _: name == "module")
        worker_child(service).kill()
        last = [follow(http, job, never)[-1][1] for job in (first, *batch)]
        ended = [http.get(f"/v1/jobs/{job}").json() for job in batch]
    assert last == ["succeeded"] * 4
    assert [(job["status"], job["attempts"]) for job in ended] == [("succeeded", 2)] * 3
    assert list((tmp_path / "staging").iterdir()) == []


def worker_child(service: Service) -> psutil.Process:
    """The process that does the work, the youngest."""
    children = [p for p in service.children() if "celery" in " ".join(p.cmdline())]
    return max(children, key=lambda p: p.create_time())
