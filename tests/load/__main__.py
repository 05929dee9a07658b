"""`make load`: many clients and small jobs at once, in both set-ups, on loopback alone.

Prints a table: what was accepted, lost and doubled, how long requests took, jobs a second against
the pace of a worker that does nothing else, and the API's memory through a gigabyte.
"""

import asyncio
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import httpx
import psutil
import torch
from sqlalchemy import make_url

from app.config import Settings
from app.storage import migrate
from app.storage.records import SqlRecords
from tests.conftest import POSTGRES_URL, run_on_postgres_server
from tests.factory import World, make_world
from tests.load.clients import Seen, all_at_once
from tests.load.memory import upload_and_download
from tests.samples import a_job
from tests.servers import RedisServer
from tests.service import running
from tests.uploads import parts

CLIENTS, JOBS_EACH = 200, 5
PACE_JOBS = 200
BODY = {"base_model": "base", "chat_model": "chat"}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        world = make_world(folder / "models")
        print(f"{_machine()}\n{CLIENTS} clients, {CLIENTS * JOBS_EACH} jobs; the API, a worker and "
              "the clients share the cores\n")  # fmt: skip
        sqlite = f"sqlite:///{folder}/sqlite/records.sqlite3"
        _one("SQLite, bundled broker", folder / "sqlite", world, sqlite, {})
        with _postgres() as url, _redis() as redis_url:
            settings = {"ADAPTER_SAFETY_DATABASE_URL": url, "ADAPTER_SAFETY_REDIS_URL": redis_url}
            _one("PostgreSQL, Redis", folder / "postgres", world, url, settings)


def _one(name: str, data: Path, world: World, url: str, settings: dict[str, str]) -> None:
    with running(data, world.base.parent, **settings) as service:
        adapter = httpx.post(f"{service.url}/v1/adapters", files=parts(world.adapter)).json()["id"]
        body = {**BODY, "adapter": adapter}
        seen = asyncio.run(all_at_once(service.url, CLIENTS, JOBS_EACH, body))
        grown = upload_and_download(service, url)
    with _redis() as redis_url:
        pace = _pace(data, world, url, adapter, redis_url)
    _tell(name, seen, pace, grown)
    assert seen.lost == seen.doubled == 0
    assert seen.succeeded == len(seen.accepted) == CLIENTS * JOBS_EACH


def _pace(data: Path, world: World, url: str, adapter_id: str, redis_url: str) -> float:
    """Jobs a second of a worker alone, without API, clients or messages."""
    from workers.runtime import make_runtime

    settings = Settings(
        data_dir=data, database_url=url, redis_url=redis_url, threads=1,
        model_root=world.base.parent,
    )  # fmt: skip
    records = SqlRecords(url)
    adapter = records.adapter(adapter_id)
    jobs = [
        records.add_job(a_job(adapter, base_model="base", chat_model="chat"), None)
        for _ in range(PACE_JOBS)
    ]
    runtime = make_runtime(settings)
    runtime.run(jobs[0].id)  # which opens what is opened once
    started = time.monotonic()
    for job in jobs[1:]:
        runtime.run(job.id)
    assert all(records.job(job.id).is_final for job in jobs)
    records.close()
    return PACE_JOBS / (time.monotonic() - started)


def _tell(name: str, seen: Seen, pace: float, grown: dict[str, float]) -> None:
    rate = len(seen.ended) / seen.seconds
    print(name)
    print(f"  accepted {len(set(seen.accepted))}, ended {len(seen.ended)}, succeeded "
          f"{seen.succeeded}, lost {seen.lost}, doubled {seen.doubled}, "
          f"refused {dict(seen.refused)}")  # fmt: skip
    for what, times in (("submit", seen.submit_s), ("status", seen.status_s)):
        cuts = quantiles(times, n=100)
        print(f"  {what}: p50 {cuts[49] * 1e3:.0f} ms, p99 {cuts[98] * 1e3:.0f} ms, "
              f"{len(times)} requests")  # fmt: skip
    print(f"  {rate:.1f} jobs/s, {rate / pace:.2f} of a worker's own pace ({pace:.1f} jobs/s)")
    for what, mib in grown.items():
        print(f"  API memory through a {what}: +{mib:.0f} MiB")
    print()


@contextmanager
def _postgres() -> Iterator[str]:
    name = f"adapter_safety_load_{uuid.uuid4().hex[:12]}"
    run_on_postgres_server(f"CREATE DATABASE {name}")
    url = make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)
    try:
        migrate.upgrade(url)
        yield url
    finally:
        run_on_postgres_server(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _redis() -> Iterator[str]:
    server = RedisServer()
    server.start()
    try:
        yield server.url
    finally:
        server.remove()


def _machine() -> str:
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor()
    )  # fmt: skip
    memory = psutil.virtual_memory().total / (1 << 30)
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
