"""One service in parts, with everything on that tells of it, and one job that it has done."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import httpx
import pytest

from app.domain.job import Job
from tests.factory import World
from tests.faults.processes import QUICK, Site, until
from tests.observe.receiver import Receiver, receiving
from tests.servers import RedisServer, free_port

TOKEN = "scraper's own secret"
HOOK_SECRET = "what the hub sends along"
SILENT_S = 4.0
REQUEST = "seen-by-the-client-1"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Observed:
    """A service that has done a job."""

    site: Site
    worker: "Popen[bytes]"
    worker_url: str
    receiver: Receiver
    job: Job

    def log(self, process: str) -> list[dict[str, object]]:
        """Its lines, each of which must be an object."""
        (path,) = self.site.logs.glob(f"{process}*.log")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def metrics(self, url: str, token: str | None = TOKEN) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"{url}/metrics", headers=headers, timeout=30)

    def state(self) -> tuple[int, str]:
        answer = httpx.get(f"{self.worker_url}/readyz", timeout=30)
        return answer.status_code, answer.json()["state"]


@pytest.fixture(scope="session")
def observed(
    tmp_path_factory: pytest.TempPathFactory, model_root: Path, llama_world: World
) -> Iterator[Observed]:
    folder, redis = tmp_path_factory.mktemp("observed"), RedisServer()
    redis.start()
    with receiving() as receiver:
        port = free_port()
        site = Site(
            folder / "data",
            model_root,
            redis,
            f"sqlite:///{folder / 'records.sqlite3'}",
            {**QUICK, **settings(port), **of_traces(receiver)},
        )
        try:
            yield having_done_a_job(site, llama_world, f"http://127.0.0.1:{port}", receiver)
        finally:
            site.close()
            redis.remove()


def settings(port: int) -> dict[str, str]:
    return {
        "ADAPTER_SAFETY_LOG_LEVEL": "debug",
        "ADAPTER_SAFETY_METRICS_TOKEN": TOKEN,
        "ADAPTER_SAFETY_HOOK_SECRET": HOOK_SECRET,
        "ADAPTER_SAFETY_WORKER_PORT": str(port),
        "ADAPTER_SAFETY_WORKER_SILENT_S": str(SILENT_S),
        "ADAPTER_SAFETY_ALIGNMENT_CACHE_BYTES": str(1 << 30),
    }


def of_traces(receiver: Receiver) -> dict[str, str]:
    return {
        "ADAPTER_SAFETY_TRACES": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def having_done_a_job(site: Site, world: World, worker_url: str, receiver: Receiver) -> Observed:
    (site.data / "staging").mkdir(parents=True, exist_ok=True)
    worker = site.start_worker("tests.observe.unhurried")
    site.start_api()
    job = submitted(site, world, {"X-Request-ID": REQUEST, "traceparent": PARENT})
    ended = site.await_end(job)
    assert ended.status == "succeeded", ended.fault
    observed = Observed(site, worker, worker_url, receiver, ended)
    until(lambda: "job patch" in receiver.of_trace(TRACE), "the spans have come")
    return observed


def submitted(site: Site, world: World, headers: dict[str, str] | None = None) -> str:
    adapter = site.upload(world.adapter)
    body = {"adapter": adapter, "base_model": "base", "chat_model": "chat"}
    answer = site.http.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])
