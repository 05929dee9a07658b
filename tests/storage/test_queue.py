"""The queue, with a real broker and a real Celery worker."""

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from app.domain.errors import Unavailable
from app.domain.job import KINDS
from app.storage.queue import QUEUE_NAME, TASK_NAMES, CeleryQueue, celery_settings, celery_url
from tests.servers import RedisServer


@pytest.mark.parametrize(
    ("redis_url", "expected"),
    [
        ("redis://host:6379/2", "redis://host:6379/2"),
        ("rediss://u:p@host:6379/2", "rediss://u:p@host:6379/2"),
        ("unix:///run/r.sock", "redis+socket:///run/r.sock?virtual_host=0"),
        ("unix:///run/r.sock?db=3", "redis+socket:///run/r.sock?virtual_host=3"),
        ("unix://u:p@/run/r.sock?db=3", "redis+socket://u:p@/run/r.sock?virtual_host=3"),
    ],
)
def test_a_redis_url_becomes_celerys(redis_url: str, expected: str) -> None:
    assert celery_url(redis_url) == expected


def test_the_visibility_timeout_is_in_all_three_places() -> None:
    settings = celery_settings("redis://host", visibility_timeout_s=1234)
    assert settings["visibility_timeout"] == 1234
    assert settings["broker_transport_options"]["visibility_timeout"] == 1234
    assert settings["result_backend_transport_options"]["visibility_timeout"] == 1234


def test_every_kind_of_job_has_a_task() -> None:
    assert set(TASK_NAMES) == set(KINDS)


def worker_app(redis_url: str, got: list[tuple[str, str]]) -> Celery:
    app = Celery("tests", set_as_current=False)
    app.conf.update(celery_settings(redis_url, visibility_timeout_s=60))
    app.conf.worker_hijack_root_logger = False  # because other tests read the log

    @app.task(name=TASK_NAMES["patch"], bind=True, shared=False)
    def patch(self: object, job_id: str) -> None:
        got.append((job_id, self.request.id))  # type: ignore[attr-defined]

    return app


@pytest.mark.parametrize("database", [1, 2])
def test_a_worker_gets_each_jobs_id_once(redis_url: str, database: int) -> None:
    url = f"{redis_url}?db={database}"
    jobs = [uuid.uuid4().hex for _ in range(3)]
    got: list[tuple[str, str]] = []
    queue = CeleryQueue(url)
    for job in jobs:
        queue.send(job, "patch")
    app = worker_app(url, got)
    with start_worker(app, pool="solo", perform_ping_check=False):
        deadline = time.monotonic() + 10
        while len(got) < len(jobs) and time.monotonic() < deadline:
            time.sleep(0.01)
    app.close()
    assert sorted(got) == sorted((job, job) for job in jobs)


def test_two_queues_share_a_redis_and_do_not_meet(own_redis: RedisServer) -> None:
    for name in ("one", "other", "other"):
        queue = CeleryQueue(own_redis.url, queue=name)
        queue.send(uuid.uuid4().hex, "patch")
    with redis.Redis.from_url(own_redis.url) as client:
        assert [client.llen(name) for name in ("one", "other", QUEUE_NAME)] == [1, 2, 0]


# ------------------------------------------------------------------------------- availability
def test_a_broker_that_answers_passes_the_check(redis_url: str) -> None:
    CeleryQueue(redis_url).check()


@contextmanager
def mute_server() -> Iterator[str]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def assert_unavailable_soon(url: str) -> None:
    queue = CeleryQueue(url)
    for attempt in (lambda: queue.send("job", "patch"), queue.check):
        began = time.monotonic()
        with pytest.raises(Unavailable, match="broker"):
            attempt()
        assert time.monotonic() - began < 3  # because two tries of a second each, and slack


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///no/such.sock"])
def test_a_broker_that_is_away_is_unavailable_soon(url: str) -> None:
    assert_unavailable_soon(url)


def test_a_broker_that_hangs_is_unavailable_soon() -> None:
    with mute_server() as url:
        assert_unavailable_soon(url)


def test_a_broker_that_comes_back_is_used_again(own_redis: RedisServer) -> None:
    queue = CeleryQueue(own_redis.url)
    queue.send("first", "patch")
    own_redis.stop()
    own_redis.start()
    queue.send("second", "patch")
    own_redis.stop()
    with pytest.raises(Unavailable):
        queue.send("third", "patch")
    own_redis.start()
    queue.send("fourth", "patch")


def test_threads_may_send_at_once(own_redis: RedisServer) -> None:
    queue = CeleryQueue(own_redis.url)
    threads = [
        threading.Thread(target=queue.send, args=(uuid.uuid4().hex, "patch")) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.llen(QUEUE_NAME) == 20
        assert len(client.client_list()) == 1, "a send left its connection open"
