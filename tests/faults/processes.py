"""The service's parts as processes of their own, each of which a test may kill and start again."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any, TypeVar

import httpx
import psutil
import redis

from app.domain.job import Job
from app.storage import migrate
from app.storage.records import SqlRecords
from tests.servers import RedisServer
from tests.uploads import parts

T = TypeVar("T")

HERE = Path(__file__).parent  # where the tests' own variants of the worker are
ROOT = HERE.parents[1]
LOOK_EVERY_S = 0.02
WITHIN_S = 120.0  # not what anything takes, but when to give up
METHOD = {"projector": "exact", "select": {"by": "all"}}
POOL = ["--pool", "prefork", "--concurrency", "1"]
WORKER = ["worker", *POOL, "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
QUICK = {  # so that what is repaired is repaired within seconds
    "ADAPTER_SAFETY_LEASE_S": "2",
    "ADAPTER_SAFETY_RECONCILE_EVERY_S": "1",
    "ADAPTER_SAFETY_ALIGNMENT_CACHE_BYTES": "0",  # so that a second job takes as long as a first
    "ADAPTER_SAFETY_THREADS": "1",
    "ADAPTER_SAFETY_COALESCE": "1",
}


def until(condition: Callable[[], T | None], what: str, within_s: float = WITHIN_S) -> T:
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(LOOK_EVERY_S)
    return found


@dataclass
class Site:
    """A data folder, a database, a Redis, and the processes that work on them."""

    data: Path
    model_root: Path
    redis: RedisServer
    database_url: str
    settings: dict[str, str]
    workers: "list[Popen[bytes]]" = field(default_factory=list)
    api: "Popen[bytes] | None" = None
    _open: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        migrate.upgrade(self.database_url)
        self.records = SqlRecords(self.database_url)
        self._open.callback(self.records.close)
        # kept open while the API is away, so that it comes back at the same address
        self._listener = self._open.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.http = self._open.enter_context(httpx.Client(base_url=self.url, timeout=30))

    @property
    def logs(self) -> Path:
        return self.data.parent / "logs"

    @property
    def staging(self) -> Path:
        return self.data / "staging"

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return host, port

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    @cached_property
    def broker(self) -> "redis.Redis[Any]":
        return self._open.enter_context(redis.Redis.from_url(self.redis.url, decode_responses=True))

    # ---------------------------------------------------------------------------------- processes
    def start_api(self) -> None:
        descriptor = self._listener.fileno()
        app = ["uvicorn", "--factory", "app.main:create_app", "--fd", str(descriptor)]
        self.api = self._spawn("api", app, keep=(descriptor,))
        until(lambda: httpx.get(f"{self.url}/healthz", timeout=30).is_success, "the API answers")

    def start_worker(self, app: str = "workers.celery_app") -> "Popen[bytes]":
        """Does not wait: see `await_workers`."""
        number = len(self.workers)
        worker = self._spawn(
            f"worker-{number}", ["celery", "-A", app, *WORKER, "-n", f"w{number}@%h"]
        )
        self.workers.append(worker)
        return worker

    def await_workers(self) -> None:
        """Until each has said that it takes jobs."""
        key = "adapter-safety:workers"
        until(lambda: self.broker.zcard(key) >= len(self.workers), "the workers are ready")

    def log_of_workers(self) -> str:
        return "".join(path.read_text() for path in self.logs.glob("worker-*.log"))

    def _spawn(self, name: str, module: list[str], keep: tuple[int, ...] = ()) -> "Popen[bytes]":
        with (self.logs / f"{name}.log").open("ab") as log:
            return Popen(
                [sys.executable, "-m", *module],
                env=self.environment(),
                stdout=log,
                stderr=STDOUT,
                pass_fds=keep,
            )

    def environment(self) -> dict[str, str]:
        """Of each of its processes."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTER_SAFETY_")}
        return {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE))),
            "ADAPTER_SAFETY_DATA_DIR": str(self.data),
            "ADAPTER_SAFETY_MODEL_ROOT": str(self.model_root),
            "ADAPTER_SAFETY_DATABASE_URL": self.database_url,
            "ADAPTER_SAFETY_REDIS_URL": self.redis.url,
            "ADAPTER_SAFETY_AUTH": "none",
            **self.settings,
        }

    def close(self) -> None:
        for process in [*self.workers, *([self.api] if self.api else [])]:
            kill(process)
        self._open.close()

    # --------------------------------------------------------------------------------------- jobs
    def upload(self, folder: Path) -> str:
        answer = self.http.post("/v1/adapters", files=parts(folder))
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def submit(self, adapter: str) -> str:
        answer = self.http.post("/v1/jobs", json=body_of(adapter))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> Job:
        return self.records.job(job_id)

    def await_module(self, job_id: str, done: int = 1) -> None:
        """Until the job is in the middle of its work."""
        until(lambda: self.job(job_id).modules_done >= done, "a module is done")

    def await_end(self, job_id: str, within_s: float = WITHIN_S) -> Job:
        return until(lambda: self._ended(job_id), f"job {job_id} has ended", within_s)

    def _ended(self, job_id: str) -> Job | None:
        job = self.job(job_id)
        return job if job.is_final else None


def body_of(adapter: str) -> dict[str, Any]:
    return {"adapter": adapter, "base_model": "base", "chat_model": "chat", "method": METHOD}


def child_of(worker: "Popen[bytes]") -> psutil.Process | None:
    """The process that does a worker's work; None while there is none."""
    children = [p for p in psutil.Process(worker.pid).children() if is_alive(p)]
    return max(children, key=lambda p: p.create_time(), default=None)


@contextmanager
def frozen(worker: "Popen[bytes]") -> Iterator[psutil.Process]:
    """Its child, which stands still meanwhile."""
    child = until(lambda: child_of(worker), "there is a child")
    child.suspend()
    try:
        yield child
    finally:
        child.resume()


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(process: "Popen[bytes]") -> None:
    """With all its children, which may be stopped or orphans-to-be."""
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        for member in family:
            if is_alive(member):
                member.kill()
    process.wait()
