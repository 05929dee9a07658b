"""Workers that are told to stop, time limits, and a database that is away when a job ends."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.domain.errors import TimeLimitReached, Unavailable
from app.domain.job import Job
from app.jobs import held as held_module
from app.jobs.held import Held
from app.jobs.ports import Records
from app.jobs.run import Desk, end_overdue, run_job
from app.storage.events import RedisEvents
from app.storage.records import SqlRecords
from tests.jobs.test_run import RESULT, ListQueue
from tests.samples import a_kept_job


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def desk(records: SqlRecords, redis_url: str, queue: ListQueue) -> Desk:
    return Desk(records, RedisEvents(redis_url), queue, lease_s=60.0, coalesce=4)


@pytest.fixture
def two(records: SqlRecords) -> list[Job]:
    return [a_kept_job(records) for _ in range(2)]


def seen(records: Records, jobs: Sequence[Job]) -> list[tuple[str, int]]:
    now = [records.job(job.id) for job in jobs]
    return [(job.status, job.attempts) for job in now]


def one_of_two_modules(held: Sequence[Held]) -> None:
    for each in held:
        each.attempt(lambda each=each: each.lease.progress(1, 2, {"module": "a"}))
        if each.is_open:
            each.succeed(RESULT)


def both_modules(held: Sequence[Held]) -> None:
    for each in held:
        each.attempt(lambda each=each: each.lease.progress(2, 2, {"module": "b"}))
        each.succeed(RESULT)


def too_long(_: Sequence[Held]) -> None:
    raise TimeLimitReached(limit_s=3)


def test_a_worker_that_stops_gives_all_its_jobs_back_and_sends_them_again(
    records: SqlRecords, desk: Desk, queue: ListQueue, two: list[Job]
) -> None:
    stops_later = iter([False, False, True, True])
    stopping = replace(desk, is_stopping=lambda: next(stops_later))
    assert run_job(two[0].id, one_of_two_modules, stopping) is None
    assert seen(records, two) == [("queued", 0)] * 2
    assert queue.sent == [job.id for job in two]


def test_a_worker_that_stops_takes_no_new_job(
    records: SqlRecords, desk: Desk, queue: ListQueue, two: list[Job]
) -> None:
    stopping = replace(desk, is_stopping=lambda: True, coalesce=1)
    assert run_job(two[0].id, lambda _: pytest.fail("it began"), stopping) is None
    assert (seen(records, two), queue.sent) == ([("queued", 0)] * 2, [two[0].id])


def test_a_worker_that_stops_keeps_a_job_that_is_through(
    records: SqlRecords, desk: Desk, two: list[Job]
) -> None:
    stops_later = iter([False, False, True, True])
    stopping = replace(desk, is_stopping=lambda: next(stops_later))
    assert run_job(two[0].id, both_modules, stopping) == "succeeded"
    assert seen(records, two) == [("succeeded", 1)] * 2


def test_of_jobs_over_the_time_limit_together_each_has_another_try_alone(
    records: SqlRecords, desk: Desk, queue: ListQueue, two: list[Job]
) -> None:
    assert run_job(two[0].id, too_long, desk) is None
    assert seen(records, two) == [("queued", 0)] * 2
    assert queue.sent == [job.id for job in two]
    assert run_job(two[0].id, too_long, desk) == "failed"
    fault = records.job(two[0].id).fault
    assert fault
    assert (fault.code, fault.facts) == ("time-limit-reached", {"limit_s": 3})


def test_a_job_whose_worker_was_killed_at_the_limit_has_one_try_alone_and_then_fails(
    records: SqlRecords, desk: Desk, queue: ListQueue, two: list[Job]
) -> None:
    job = two[0].id
    assert records.claim(job, lease_s=60)
    end_overdue(job, 3, desk)
    assert (seen(records, two)[0], queue.sent) == (("queued", 0), [job])
    assert records.claim(job, lease_s=60)
    for _ in range(2):  # a second call finds nothing to do
        end_overdue(job, 3, desk)
    assert seen(records, two)[0] == ("failed", 1)


class AwayAtFirst:
    """The real records, but the first few times that a job ends."""

    def __init__(self, records: SqlRecords, times: int) -> None:
        self._records, self._left = records, times

    def __getattr__(self, name: str) -> object:
        return getattr(self._records, name)

    def finish(self, job_id: str, **given: object) -> Job:
        self._left -= 1
        if self._left >= 0:
            raise Unavailable(part="database")
        return self._records.finish(job_id, **given)  # type: ignore[arg-type] # passed on


@pytest.mark.parametrize(("times", "status"), [(2, "succeeded"), (1000, "running")])
def test_an_end_that_the_database_does_not_take_is_tried_for_as_long_as_a_lease(
    records: SqlRecords,
    desk: Desk,
    two: list[Job],
    times: int,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_module, "MOVE_AGAIN_AFTER_S", 0.01)
    away = replace(desk, records=AwayAtFirst(records, times), lease_s=0.3, coalesce=1)
    run_job(two[0].id, both_modules, away)
    assert records.job(two[0].id).status == status
