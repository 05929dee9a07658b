"""Following a job while it runs, and when the event stream is lost."""

import asyncio
import time

import pytest

from app.domain.job import JobEvent
from app.jobs.retrieve import follow, is_told, wait_until_final
from app.storage.events import RedisEvents
from app.storage.records import SqlRecords
from tests.samples import a_kept_job
from tests.servers import RedisServer


@pytest.fixture
def events(redis_url: str) -> RedisEvents:
    return RedisEvents(redis_url)


async def followed(
    job_id: str, records: SqlRecords, events: RedisEvents, after: str = "0"
) -> list[JobEvent]:
    return [event async for event in follow(job_id, after, records, events)]


def ended(records: SqlRecords, status: str = "cancelled") -> str:
    job = a_kept_job(records)
    claimed = records.claim(job.id, lease_s=60)
    assert claimed
    records.finish(job.id, fence=claimed.fence, status=status)
    return job.id


def test_events_come_as_they_happen_and_end_with_the_final_one(
    records: SqlRecords, events: RedisEvents
) -> None:
    job = a_kept_job(records)

    async def scene() -> list[JobEvent]:
        following = asyncio.create_task(followed(job.id, records, events))
        claimed = records.claim(job.id, lease_s=60)
        assert claimed
        for name in ("queued", "running", "module"):
            events.publish(job.id, name, {})
        records.finish(job.id, fence=claimed.fence, status="cancelled")
        events.publish(job.id, "cancelled", {})
        return await asyncio.wait_for(following, 10)

    found = asyncio.run(scene())
    assert [e.name for e in found] == ["queued", "running", "module", "cancelled"]


def test_a_lost_stream_still_ends_with_the_records_word(
    records: SqlRecords, events: RedisEvents
) -> None:
    (only,) = asyncio.run(followed(ended(records), records, events))
    assert (only.name, only.data) == ("cancelled", {"status": "cancelled"})


def test_a_broker_that_is_away_does_not_hide_the_end(
    records: SqlRecords, own_redis: RedisServer
) -> None:
    events = RedisEvents(own_redis.url)
    own_redis.stop()
    job_id = ended(records)
    (only,) = asyncio.run(followed(job_id, records, events))
    assert only.name == "cancelled"
    job = asyncio.run(wait_until_final(job_id, 5, records, events))
    assert job.status == "cancelled"


def test_waiting_ends_with_the_job_or_with_the_time(
    records: SqlRecords, events: RedisEvents
) -> None:
    job = a_kept_job(records)
    began = time.monotonic()
    assert asyncio.run(wait_until_final(job.id, 0.3, records, events)).status == "queued"
    assert 0.3 <= time.monotonic() - began < 5

    async def scene() -> str:
        waiting = asyncio.create_task(wait_until_final(job.id, 30, records, events))
        records.request_cancel(job.id)
        events.publish(job.id, "cancelled", {})
        return (await asyncio.wait_for(waiting, 10)).status

    assert asyncio.run(scene()) == "cancelled"


def test_a_client_that_saw_all_but_the_end_is_not_told_that_it_is_over(
    records: SqlRecords, events: RedisEvents, own_redis: RedisServer
) -> None:
    """The final event was lost, or Redis is away: the record still gives it, once."""
    job_id = ended(records)
    events.publish(job_id, "module", {})
    (seen,) = asyncio.run(events.read(job_id, after="0", block_s=0))
    away = RedisEvents(own_redis.url)
    own_redis.stop()
    for source in (events, away):
        assert not asyncio.run(is_told(job_id, seen.id, records, source))
        (last,) = asyncio.run(followed(job_id, records, source, after=seen.id))
        assert last.name == "cancelled"
        assert asyncio.run(is_told(job_id, last.id, records, source))


def test_a_client_that_saw_the_end_is_told_so(records: SqlRecords, events: RedisEvents) -> None:
    job_id = ended(records)
    events.publish(job_id, "running", {})
    events.publish(job_id, "cancelled", {})
    first, last = asyncio.run(events.read(job_id, after="0", block_s=0))
    assert not asyncio.run(is_told(job_id, "0", records, events))
    assert not asyncio.run(is_told(job_id, first.id, records, events))
    assert asyncio.run(is_told(job_id, last.id, records, events))
