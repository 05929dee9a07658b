"""Several jobs in one pass: each with a lease, a cancel, a fault and an end of its own."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from app.domain.errors import ArtifactCorrupt, JobCancelled, NonFiniteTensor, Unavailable
from app.domain.job import Job
from app.jobs.cancel import cancel
from app.jobs.held import Held
from app.jobs.run import Desk, Work, run_job
from app.jobs.submit import reconcile
from app.storage.events import RedisEvents
from app.storage.records import SqlRecords
from tests.jobs.test_run import RESULT, ListQueue, names
from tests.samples import a_job, a_kept_job, an_adapter


@pytest.fixture
def events(redis_url: str) -> RedisEvents:
    return RedisEvents(redis_url)


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def desk(records: SqlRecords, events: RedisEvents, queue: ListQueue) -> Desk:
    return Desk(records, events, queue, lease_s=60.0, coalesce=4)


@pytest.fixture
def three(records: SqlRecords) -> list[Job]:
    return [a_kept_job(records) for _ in range(3)]


def statuses(records: SqlRecords, jobs: Sequence[Job]) -> list[str]:
    return [records.job(job.id).status for job in jobs]


def succeeds(held: Sequence[Held]) -> None:
    for each in held:
        each.succeed(RESULT)


def never(_: Sequence[Held]) -> None:
    pytest.fail("there was nothing to do")


def with_one(job: Job, step: Callable[[Held], None]) -> Work:
    """All succeed but `job`, for which `step` is tried."""

    def work(held: Sequence[Held]) -> None:
        for each in held:
            if each.job.id == job.id:
                each.attempt(lambda each=each: step(each))
            if each.is_open:
                each.succeed(RESULT)

    return work


def test_jobs_that_wait_are_done_in_one_pass(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    batches = []

    def work(held: Sequence[Held]) -> None:
        batches.append([each.job.id for each in held])
        succeeds(held)

    assert run_job(three[1].id, work, desk) == "succeeded"
    assert batches == [[three[1].id, three[0].id, three[2].id]]
    assert statuses(records, three) == ["succeeded"] * 3


def test_each_tells_what_it_always_told(desk: Desk, events: RedisEvents, three: list[Job]) -> None:
    run_job(three[0].id, succeeds, desk)
    assert [asyncio.run(names(events, job)) for job in three] == [["running", "succeeded"]] * 3


def test_a_batch_is_no_larger_than_the_setting(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    more = [a_kept_job(records) for _ in range(3)]
    run_job(three[0].id, succeeds, desk)
    assert statuses(records, [*three, *more]) == ["succeeded"] * 4 + ["queued"] * 2


def test_the_setting_one_does_each_alone(
    records: SqlRecords, events: RedisEvents, queue: ListQueue, three: list[Job]
) -> None:
    run_job(three[0].id, succeeds, Desk(records, events, queue, lease_s=60.0, coalesce=1))
    assert statuses(records, three) == ["succeeded", "queued", "queued"]


def test_the_message_of_a_job_that_went_with_another_finds_nothing(
    desk: Desk, three: list[Job]
) -> None:
    run_job(three[0].id, succeeds, desk)
    assert run_job(three[1].id, never, desk) is None


def test_a_retry_runs_alone(records: SqlRecords, desk: Desk, three: list[Job]) -> None:
    assert records.claim(three[0].id, lease_s=-1)  # a worker took it and died
    run_job(three[0].id, succeeds, desk)
    assert statuses(records, three) == ["succeeded", "queued", "queued"]


def test_an_alignment_goes_alone(records: SqlRecords, desk: Desk, three: list[Job]) -> None:
    asked = a_job(an_adapter(), kind="alignment", modules=("q_proj",))
    alignment = records.add_job(replace(asked, adapter=None), None)
    run_job(alignment.id, succeeds, desk)
    assert records.job(alignment.id).modules == ("q_proj",)
    assert statuses(records, [alignment, *three]) == ["succeeded"] + ["queued"] * 3


def test_a_fault_of_one_is_its_own(records: SqlRecords, desk: Desk, three: list[Job]) -> None:
    def faulty(_: Held) -> None:
        raise NonFiniteTensor(tensor="w", source="adapter")

    assert run_job(three[0].id, with_one(three[1], faulty), desk) == "succeeded"
    assert statuses(records, three) == ["succeeded", "failed", "succeeded"]
    fault = records.job(three[1].id).fault
    assert fault
    assert fault.code == "non-finite-tensor"


def test_the_first_may_fail_while_the_others_go_on(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    def faulty(_: Held) -> None:
        raise NonFiniteTensor(tensor="w", source="adapter")

    assert run_job(three[0].id, with_one(three[0], faulty), desk) == "failed"
    assert statuses(records, three) == ["failed", "succeeded", "succeeded"]


def test_a_cancel_of_one_ends_it_alone(
    records: SqlRecords, events: RedisEvents, desk: Desk, three: list[Job]
) -> None:
    def cancelled(held: Held) -> None:
        held.lease.progress(1, 9, {"module": "a"})
        cancel(held.job.id, records=records, events=events)
        held.lease.progress(2, 9, {"module": "b"})
        pytest.fail("the cancel was not seen")

    run_job(three[0].id, with_one(three[2], cancelled), desk)
    assert statuses(records, three) == ["succeeded", "succeeded", "cancelled"]


def test_a_lease_lost_by_one_does_not_disturb_the_others(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    def lost(held: Held) -> None:
        held.lease._ended.set()  # its renewals stop, as those of a frozen process do
        records.heartbeat(held.job.id, fence=1, lease_s=-1, modules_done=0, modules_total=0)
        assert run_job(held.job.id, succeeds, desk) == "succeeded"
        held.lease.check()
        pytest.fail("the loss was not seen")

    run_job(three[0].id, with_one(three[1], lost), desk)
    assert statuses(records, three) == ["succeeded"] * 3
    assert [records.job(job.id).fence for job in three] == [1, 2, 1]


def test_what_is_away_for_one_gives_that_one_back(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    def away(_: Held) -> None:
        raise Unavailable(part="storage")

    run_job(three[0].id, with_one(three[1], away), desk)
    assert statuses(records, three) == ["succeeded", "queued", "succeeded"]
    assert records.job(three[1].id).attempts == 0


def test_a_bug_gives_the_whole_batch_back_and_each_then_runs_alone(
    records: SqlRecords, desk: Desk, queue: ListQueue, three: list[Job]
) -> None:
    """Nobody knows whose fault it was, until the one that is to blame is alone with it."""

    def buggy(held: Sequence[Held]) -> None:
        if three[1].id in [each.job.id for each in held]:
            raise KeyError("/secret/path")
        succeeds(held)

    assert run_job(three[0].id, buggy, desk) is None
    assert statuses(records, three) == ["queued"] * 3
    assert [records.job(job.id).attempts for job in three] == [0, 0, 0]
    assert sorted(queue.sent) == sorted(job.id for job in three)
    assert [run_job(job, buggy, desk) for job in queue.sent] == [
        "failed" if job == three[1].id else "succeeded" for job in queue.sent
    ]


def test_what_was_done_before_a_bug_stays_done(
    records: SqlRecords, desk: Desk, queue: ListQueue, three: list[Job]
) -> None:
    def buggy(held: Sequence[Held]) -> None:
        held[0].succeed(RESULT)
        raise KeyError

    assert run_job(three[0].id, buggy, desk) == "succeeded"
    assert queue.sent == [three[1].id, three[2].id]


def test_a_fault_of_the_models_is_everybodys(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    def damaged(_: Sequence[Held]) -> None:
        raise ArtifactCorrupt(what="weights file")

    assert run_job(three[0].id, damaged, desk) == "failed"
    assert statuses(records, three) == ["failed"] * 3


def test_storage_that_is_away_gives_the_whole_batch_back(
    records: SqlRecords, desk: Desk, queue: ListQueue, three: list[Job]
) -> None:
    def away(_: Sequence[Held]) -> None:
        raise Unavailable(part="storage")

    assert run_job(three[0].id, away, desk) is None
    assert statuses(records, three) == ["queued"] * 3
    assert queue.sent == []  # they rest first


def test_a_job_that_the_work_forgot_goes_back(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    run_job(three[0].id, lambda held: held[0].succeed(RESULT), desk)
    assert statuses(records, three) == ["succeeded", "queued", "queued"]


def test_a_killed_workers_batch_comes_back_one_by_one(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    first = records.claim(three[0].id, lease_s=-1)
    assert first
    records.claim_companions(first, lease_s=-1, most=3, most_bytes=1 << 30)
    again = ListQueue(holds=3)  # their messages may still be there
    assert reconcile(records, again, queued_for_s=0) == [job.id for job in three]
    batches = []

    def work(held: Sequence[Held]) -> None:
        batches.append(len(held))
        succeeds(held)

    for job in again.sent:
        run_job(job, work, desk)
    assert batches == [1, 1, 1]
    assert [records.job(job.id).attempts for job in three] == [2, 2, 2]


def test_stale_messages_of_a_batch_do_not_make_the_reconciler_send_a_backlog_again(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    """Done in one pass, two of them still have a message; so has the backlog."""
    run_job(three[0].id, succeeds, desk)
    backlog = [a_kept_job(records) for _ in range(2)]
    assert reconcile(records, ListQueue(holds=4), queued_for_s=0) == []
    # the stale ones are gone, and of the backlog's own one was lost
    assert reconcile(records, ListQueue(holds=1), queued_for_s=0) == [job.id for job in backlog]


def test_running_companions_are_not_taken_for_lost(
    records: SqlRecords, desk: Desk, three: list[Job]
) -> None:
    def looks(held: Sequence[Held]) -> None:
        assert reconcile(records, ListQueue(), queued_for_s=0) == []
        succeeds(held)

    assert run_job(three[0].id, looks, desk) == "succeeded"


def test_a_job_ends_once(records: SqlRecords, desk: Desk, events: RedisEvents) -> None:
    job = a_kept_job(records)

    def work(held: Sequence[Held]) -> None:
        held[0].succeed(RESULT)
        held[0].stop(JobCancelled())

    assert run_job(job.id, work, desk) == "succeeded"
    assert records.job(job.id).status == "succeeded"
