"""`make topology`: the compose file's services as processes, two of which are killed at work."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

import boto3
import httpx
import pytest
import redis

from app.domain.job import Job
from app.storage.artifacts import CHECK_KEY
from app.storage.queue import QUEUE_NAME
from app.storage.records import SqlRecords
from tests.conftest import new_postgres_database
from tests.factory import World
from tests.faults.checks import assert_one_end, assert_right, named_by_records
from tests.faults.processes import QUICK, body_of, until
from tests.faults.undisturbed import Undisturbed
from tests.servers import S3Server
from tests.topology.containers import Container, Topology
from tests.uploads import parts

JOBS = 8
BUCKET = "adapter-safety"
S3_SETTINGS = {  # as docker/env.example has them for the profile s3
    "ADAPTER_SAFETY_STORAGE_URL": f"s3://{BUCKET}/artifacts",
    "AWS_ENDPOINT_URL": "http://s3:7070",
    "AWS_ALLOW_HTTP": "true",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "topology",
    "AWS_SECRET_ACCESS_KEY": "topology",
}


@dataclass
class Site:
    """The running topology, with what `tests.faults.checks` look at."""

    topology: Topology
    apis: list[Container]
    workers: list[Container]
    key: str
    records: SqlRecords
    broker: "redis.Redis[Any]"
    http: httpx.Client  # through the second API, which nobody kills

    def ask(self, api: int, path: str, **given: Any) -> httpx.Response:
        """POST to one of the APIs."""
        headers = {"Authorization": f"Bearer {self.key}", **given.pop("headers", {})}
        return httpx.post(self.apis[api].url + path, headers=headers, timeout=30, **given)

    def submit(self, api: int, adapter: str, number: int) -> str:
        """The job's id. Raises httpx.TransportError where that API is away."""
        key = {"Idempotency-Key": f"job-{number}"}
        answer = self.ask(api, "/v1/jobs", json=body_of(adapter), headers=key)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def running(self) -> list[Job]:
        found = self.records.jobs(status="running", kind=None, limit=200, cursor=None).items
        return [job for job in found if job.modules_done > 0]

    def await_end(self, job_id: str) -> Job:
        def ended() -> Job | None:
            job = self.records.job(job_id)
            return job if job.is_final else None

        return until(ended, f"job {job_id} has ended")


@pytest.fixture
def site(tmp_path: Path, world: World) -> Iterator[Site]:
    """All of it is up: the schema by `migrate`, two APIs, two workers, a key by `keys create`."""
    with ExitStack() as stack:
        s3 = S3Server()
        stack.callback(s3.stop)
        s3.start()
        s3_url = s3.environment["AWS_ENDPOINT_URL"]
        assert httpx.put(f"{s3_url}/{BUCKET}").is_success
        url = stack.enter_context(contextmanager(new_postgres_database)())
        topology = Topology(
            tmp_path / "host", world.base.parent, url, s3_url, {**S3_SETTINGS, **QUICK}
        )
        stack.callback(topology.close)
        yield _up(topology, stack)


def _up(topology: Topology, stack: ExitStack) -> Site:
    topology.make_redis().start()
    migrate = topology.make("migrate")
    migrate.start()
    assert migrate.process.wait(timeout=60) == 0
    apis = [topology.make("api", number) for number in range(2)]
    workers = [topology.make("worker", number) for number in range(2)]
    for container in (*workers, *apis):
        container.start()
    made = apis[0].run("adapter-safety", "keys", "create", "--name", "topology")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    records = SqlRecords(topology.database_url)
    stack.callback(records.close)
    broker = redis.Redis.from_url(topology.redis_url, decode_responses=True)
    stack.enter_context(broker)
    headers = {"Authorization": f"Bearer {key}"}
    http = stack.enter_context(httpx.Client(base_url=apis[1].url, headers=headers, timeout=30))
    for api in apis:
        until(api.is_healthy, "the API is healthy")
    for worker in workers:
        until(lambda w=worker: _is_ready(w), "the worker is ready")
        assert worker.is_healthy()
    return Site(topology, apis, workers, key, records, broker, http)


def _is_ready(worker: Container) -> bool:
    """By the state that its port tells."""
    assert worker.process.poll() is None, f"it has ended; see {worker.log}"
    with suppress(httpx.TransportError):
        return httpx.get(f"{worker.url}/readyz", timeout=5).status_code == 200
    return False


def test_an_api_and_a_worker_are_killed_and_no_job_is_lost_or_done_twice(
    site: Site, world: World, undisturbed: Undisturbed
) -> None:
    adapter, again = (site.ask(n, "/v1/adapters", files=parts(world.adapter)) for n in range(2))
    assert (adapter.status_code, again.status_code) == (201, 200)
    name = adapter.json()["id"]
    jobs = [site.submit(number % 2, name, number) for number in range(JOBS // 2)]
    until(lambda: len(site.running()) == 2, "both workers are in the middle of a job")
    site.workers[0].kill()
    site.apis[0].kill()
    with pytest.raises(httpx.TransportError):
        site.submit(0, name, JOBS // 2)
    jobs += [site.submit(1, name, number) for number in range(JOBS // 2, JOBS)]
    site.apis[0].start_again()
    site.workers[0].start_again()
    until(site.apis[0].is_healthy, "the API is back")
    until(lambda: _is_ready(site.workers[0]), "the worker is back")
    assert [site.submit((number + 1) % 2, name, number) for number in range(JOBS)] == jobs
    _assert_each_ended_once(site, jobs, undisturbed)
    _assert_nothing_is_left(site)
    _assert_all_stop_cleanly(site)


def _assert_each_ended_once(site: Site, jobs: list[str], undisturbed: Undisturbed) -> None:
    assert len(set(jobs)) == JOBS
    ended = [site.await_end(job) for job in jobs]
    assert {job.status for job in ended} == {"succeeded"}
    assert sorted(job.attempts for job in ended) == [1] * (JOBS - 1) + [2]  # the killed worker's
    for job in ended:
        assert_one_end(site, job)
        assert_right(site, job, undisturbed)
    listed = site.records.jobs(status=None, kind=None, limit=200, cursor=None).items
    assert {job.id for job in listed} == set(jobs)


def _assert_nothing_is_left(site: Site) -> None:
    """No message that waits, no folder of an attempt, no object that no record names."""
    assert site.broker.llen(QUEUE_NAME) == 0
    staging = site.topology.folder / "data" / "staging"
    until(lambda: not list(staging.iterdir()), f"{staging} is empty", 15)
    bucket = boto3.client("s3", endpoint_url=site.topology.s3_url, **_LOGIN)
    found = bucket.list_objects_v2(Bucket=BUCKET)["Contents"]
    kept = {each["Key"].rpartition("/")[2] for each in found}
    assert kept - {CHECK_KEY} == named_by_records(site)
    assert not bucket.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def _assert_all_stop_cleanly(site: Site) -> None:
    """uvicorn shuts down, and then ends by the signal that it was sent."""
    assert {worker.stop() for worker in site.workers} == {0}
    assert {api.stop() for api in site.apis} <= {0, -SIGTERM}
    for api in site.apis:
        assert "Application shutdown complete" in api.log.read_text()


_LOGIN = {
    "aws_access_key_id": "topology",
    "aws_secret_access_key": "topology",
    "region_name": "us-east-1",
}
