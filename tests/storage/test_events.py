"""Event streams and heartbeats, on a real Redis."""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator

import pytest
import redis

from app.domain.errors import InvalidField, Unavailable
from app.domain.job import JobEvent
from app.storage import events as events_module
from app.storage.events import KEPT_S, RedisEvents
from tests.servers import RedisServer

AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture
def events(redis_url: str) -> Iterator[RedisEvents]:
    events = RedisEvents(redis_url, f"test-{uuid.uuid4().hex}:")
    yield events
    events.close()


def read(events: RedisEvents, after: str = "0", block_s: float = 0) -> list[JobEvent]:
    return asyncio.run(events.read("job", after=after, block_s=block_s))


def test_events_are_read_in_the_order_they_were_published(events: RedisEvents) -> None:
    events.publish("job", "running", {})
    events.publish("job", "module", {"module": "é", "done": 1, "cosine": 0.5, "skipped": None})
    first, second = read(events)
    assert (first.name, first.data) == ("running", {})
    assert (second.name, second.data) == (
        "module",
        {"module": "é", "done": 1, "cosine": 0.5, "skipped": None},
    )


def test_a_reader_resumes_after_the_event_it_saw_last(events: RedisEvents) -> None:
    for done in range(4):
        events.publish("job", "module", {"done": done})
    seen = read(events)[1].id
    assert [event.data["done"] for event in read(events, after=seen)] == [2, 3]
    assert read(events, after=read(events)[-1].id) == []


def test_each_job_has_its_own_events(events: RedisEvents) -> None:
    events.publish("another", "running", {})
    assert read(events) == []


def test_a_waiting_reader_is_woken_by_an_event(events: RedisEvents) -> None:
    async def scenario() -> list[JobEvent]:
        waiting = asyncio.create_task(events.read("job", after="0", block_s=20))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await asyncio.to_thread(events.publish, "job", "running", {"a": 1})
        return await asyncio.wait_for(waiting, 5)

    assert [event.data for event in asyncio.run(scenario())] == [{"a": 1}]


def test_a_reader_that_hears_nothing_gives_up_in_time(events: RedisEvents) -> None:
    began = time.monotonic()
    assert read(events, block_s=0.1) == []
    assert time.monotonic() - began < 2


def test_a_reader_that_is_cancelled_leaves_no_connection(
    events: RedisEvents, redis_url: str
) -> None:
    async def scenario() -> None:
        waiting = asyncio.create_task(events.read("job", after="0", block_s=60))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
    with redis.Redis.from_url(redis_url) as client:
        assert [c for c in client.client_list() if c["cmd"] == "xread"] == []


@pytest.mark.parametrize(
    "after", ["", "$", "x", "1-", "-1", "1-2-3", " 1", "\u0661", "1\n", f"{2**64}"]
)
def test_an_id_that_is_no_events_is_refused(events: RedisEvents, after: str) -> None:
    with pytest.raises(InvalidField, match="Last-Event-ID"):
        read(events, after=after)


@pytest.mark.parametrize("after", ["0", "0-0", "5", f"{2**64 - 1}-{2**64 - 1}"])
def test_any_well_formed_id_may_be_resumed_from(events: RedisEvents, after: str) -> None:
    assert read(events, after=after) == []


def test_a_stream_is_bounded_and_expires(
    events: RedisEvents, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MAX_EVENTS", 100)
    for done in range(500):
        events.publish("job", "module", {"done": done})
    with redis.Redis.from_url(redis_url) as client:
        key = events._stream("job")
        assert 100 <= client.xlen(key) <= 250  # approximate: Redis trims whole nodes of 100
        assert KEPT_S - 60 < client.ttl(key) <= KEPT_S


def test_an_event_that_cannot_be_published_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    events = RedisEvents(AWAY)
    with caplog.at_level(logging.WARNING):
        events.publish("job", "running", {})
    assert "job" in caplog.text
    events.close()


def test_events_that_cannot_be_read_are_unavailable() -> None:
    events = RedisEvents(AWAY)
    with pytest.raises(Unavailable, match="broker"):
        read(events)
    asyncio.run(events.aclose())


def test_a_redis_that_comes_back_is_used_again(own_redis: RedisServer) -> None:
    events = RedisEvents(own_redis.url)
    events.publish("job", "running", {})
    own_redis.stop()
    own_redis.start()
    events.publish("job", "module", {})
    assert [event.name for event in read(events)] == ["module"]
    events.close()


# ------------------------------------------------------------------------------------ workers
def test_workers_that_beat_are_counted_once(events: RedisEvents) -> None:
    assert events.workers_alive() == 0
    for worker in ("one", "two", "one"):
        events.beat(worker, ttl_s=60)
    assert events.workers_alive() == 2


def test_a_worker_whose_heartbeat_ran_out_is_not_counted(events: RedisEvents) -> None:
    events.beat("one", ttl_s=60)
    events.beat("two", ttl_s=-1)
    assert events.workers_alive() == 1


def test_heartbeats_without_a_redis_are_lost_and_counting_is_unavailable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = RedisEvents(AWAY)
    events.beat("one", ttl_s=60)
    assert "one" in caplog.text
    with pytest.raises(Unavailable, match="broker"):
        events.workers_alive()
    events.close()
