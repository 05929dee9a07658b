"""A job's way from its claim to its end, on real databases and a real Redis."""

import threading
from collections.abc import Callable

import pytest

from app.domain.adapter import FileEntry
from app.domain.errors import JobCancelled, NonFiniteTensor, Unavailable
from app.domain.job import Job, JobResult
from app.jobs.cancel import cancel
from app.jobs.held import MAX_ATTEMPTS
from app.jobs.lease import Lease
from app.jobs.run import Desk, alone, run_job
from app.jobs.submit import reconcile
from app.storage.events import RedisEvents
from app.storage.records import SqlRecords
from tests.samples import a_kept_job, entry_of

RESULT = JobResult(report=entry_of(b"report"), archive=FileEntry("b" * 64, 7))


class ListQueue:
    """Keeps what was sent; `Queue` over a list, because these tests look at what is sent."""

    def __init__(self, *, away: bool = False, holds: int = 0) -> None:
        self.sent: list[str] = []
        self.away = away
        self.holds = holds

    def depth(self) -> int:
        return self.holds

    def send(self, job_id: str, kind: str) -> None:
        if self.away:
            raise Unavailable(part="broker")
        self.sent.append(job_id)

    def check(self) -> None: ...


@pytest.fixture
def events(redis_url: str) -> RedisEvents:
    return RedisEvents(redis_url)


@pytest.fixture
def run(records: SqlRecords, events: RedisEvents) -> Callable[..., str | None]:
    def run_it(
        job: Job, work: Callable[[Job, Lease], JobResult], lease_s: float = 60.0
    ) -> str | None:
        return run_job(job.id, alone(work), Desk(records, events, ListQueue(), lease_s))

    return run_it


def works(_: Job, __: Lease) -> JobResult:
    return RESULT


async def names(events: RedisEvents, job: Job) -> list[str]:
    return [event.name for event in await events.read(job.id, after="0", block_s=0)]


def test_a_job_that_works_succeeds_with_its_result(
    records: SqlRecords, run: Callable[..., str | None]
) -> None:
    job = a_kept_job(records)
    assert run(job, works) == "succeeded"
    ended = records.job(job.id)
    assert (ended.status, ended.result, ended.attempts) == ("succeeded", RESULT, 1)
    assert ended.finished_at


def test_a_job_delivered_twice_runs_once(
    records: SqlRecords, run: Callable[..., str | None]
) -> None:
    job = a_kept_job(records)
    assert run(job, works) == "succeeded"
    assert run(job, lambda *_: pytest.fail("it ran again")) is None


def test_a_known_fault_fails_the_job_with_its_facts(
    records: SqlRecords, run: Callable[..., str | None]
) -> None:
    def faulty(_: Job, __: Lease) -> JobResult:
        raise NonFiniteTensor(tensor="w", source="chat model")

    job = a_kept_job(records)
    assert run(job, faulty) == "failed"
    fault = records.job(job.id).fault
    assert fault
    assert fault.code == "non-finite-tensor"
    assert fault.facts == {"tensor": "w", "source": "chat model"}


def test_a_bug_fails_the_job_without_telling_its_insides(
    records: SqlRecords, run: Callable[..., str | None]
) -> None:
    def buggy(_: Job, __: Lease) -> JobResult:
        raise KeyError("/secret/path")

    job = a_kept_job(records)
    assert run(job, buggy) == "failed"
    fault = records.job(job.id).fault
    assert fault
    assert fault.code == "worker-fault"
    assert "secret" not in str(fault)


def test_storage_that_is_away_gives_the_job_back_without_counting_the_attempt(
    records: SqlRecords, run: Callable[..., str | None]
) -> None:
    def away(_: Job, __: Lease) -> JobResult:
        raise Unavailable(part="storage")

    job = a_kept_job(records)
    for _ in range(MAX_ATTEMPTS + 1):
        assert run(job, away) is None
        assert records.job(job.id).status == "queued"
    assert run(job, works) == "succeeded"


def test_a_cancel_ends_a_running_job_between_two_modules(
    records: SqlRecords, events: RedisEvents, run: Callable[..., str | None]
) -> None:
    job = a_kept_job(records)
    reached = []

    def slow(_: Job, lease: Lease) -> JobResult:
        lease.progress(1, 9, {"module": "a"})
        reached.append(cancel(job.id, records=records, events=events).status)
        lease.progress(2, 9, {"module": "b"})
        pytest.fail("the cancel was not seen")

    assert run(job, slow) == "cancelled"
    assert reached == ["running"]
    ended = records.job(job.id)
    assert (ended.status, ended.modules_done, ended.result) == ("cancelled", 2, None)


def test_a_cancel_before_the_start_means_no_work(
    records: SqlRecords, events: RedisEvents, run: Callable[..., str | None]
) -> None:
    job = a_kept_job(records)
    assert cancel(job.id, records=records, events=events).status == "cancelled"
    assert run(job, lambda *_: pytest.fail("it ran")) is None


def test_a_worker_that_lost_its_lease_changes_nothing(
    records: SqlRecords, run: Callable[..., str | None]
) -> None:
    """The first worker stalls past its lease, another takes over and ends the job."""
    job = a_kept_job(records)

    def stalls(_: Job, lease: Lease) -> JobResult:
        lease._ended.set()  # its renewals stop, as those of a frozen process do
        records.heartbeat(job.id, fence=1, lease_s=-1, modules_done=0, modules_total=0)
        assert run(job, works) == "succeeded"
        return JobResult(report=entry_of(b"late"), archive=entry_of(b"late"))

    assert run(job, stalls) is None
    assert records.job(job.id).result == RESULT


def test_the_lease_is_renewed_while_a_long_module_is_computed(
    records: SqlRecords, run: Callable[..., str | None]
) -> None:
    job = a_kept_job(records)

    def long_module(_: Job, __: Lease) -> JobResult:
        renewed = threading.Event()
        beat = records.heartbeat

        def counting(*args: object, **kwargs: object) -> bool:
            renewed.set()
            return beat(*args, **kwargs)

        records.heartbeat = counting
        assert renewed.wait(10)
        assert records.claim(job.id, lease_s=1) is None
        return RESULT

    assert run(job, long_module, lease_s=1.5) == "succeeded"


def test_a_job_that_never_ends_is_given_up(
    records: SqlRecords, run: Callable[..., str | None]
) -> None:
    job = a_kept_job(records)
    for _ in range(MAX_ATTEMPTS):
        assert records.claim(job.id, lease_s=-1)  # a worker took it and died
    assert run(job, lambda *_: pytest.fail("it ran again")) == "failed"
    fault = records.job(job.id).fault
    assert fault
    assert fault.code == "too-many-attempts"


def test_an_id_that_is_no_job_is_passed_over(run: Callable[..., str | None]) -> None:
    class Nobody:
        id = "nobody"

    assert run(Nobody(), works) is None


@pytest.mark.parametrize(
    ("work", "last"),
    [(works, "succeeded"), (lambda *_: 1 / 0, "failed")],
)
def test_the_final_event_comes_after_the_record(
    records: SqlRecords,
    run: Callable[..., str | None],
    events: RedisEvents,
    work: Callable[[Job, Lease], JobResult],
    last: str,
) -> None:
    seen = []
    publish = events.publish

    def noting(job_id: str, name: str, data: dict[str, object]) -> None:
        seen.append((name, records.job(job_id).status))
        publish(job_id, name, data)

    events.publish = noting
    run(a_kept_job(records), work)
    assert seen == [("running", "running"), (last, last)]


def test_cancelled_is_not_an_error(records: SqlRecords, run: Callable[..., str | None]) -> None:
    def stopped(_: Job, __: Lease) -> JobResult:
        raise JobCancelled

    job = a_kept_job(records)
    assert run(job, stopped) == "cancelled"
    assert records.job(job.id).fault is None


def test_the_reconciler_sends_what_the_queue_lost_and_nothing_else(records: SqlRecords) -> None:
    lost, dead, running, done = (a_kept_job(records) for _ in range(4))
    records.claim(dead.id, lease_s=-1)
    records.claim(running.id, lease_s=60)
    claimed = records.claim(done.id, lease_s=60)
    assert claimed
    records.finish(done.id, fence=claimed.fence, status="succeeded", result=RESULT)
    queue = ListQueue()
    assert set(reconcile(records, queue, queued_for_s=0)) == {lost.id, dead.id}
    assert set(queue.sent) == {lost.id, dead.id}


def test_the_reconciler_survives_a_broker_that_is_away(records: SqlRecords) -> None:
    job = a_kept_job(records)
    assert reconcile(records, ListQueue(away=True), queued_for_s=0) == [job.id]
    assert records.job(job.id).status == "queued"


def test_a_backlog_that_the_queue_still_holds_is_not_sent_again(records: SqlRecords) -> None:
    backlog = [a_kept_job(records).id for _ in range(3)]
    assert reconcile(records, ListQueue(holds=3), queued_for_s=0) == []
    assert reconcile(records, ListQueue(holds=2), queued_for_s=0) == backlog
