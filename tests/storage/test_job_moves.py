"""Claims, leases and fences, on SQLite and PostgreSQL. A negative lease has run out at once."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.domain.errors import JobAlreadyFinished, JobNotFound, LeaseLost, RankMismatch
from app.domain.job import Checkpointed, Fault, Job, JobResult, JobStatus
from app.storage.records import SqlRecords
from tests.samples import a_kept_job, entry_of

RAN_OUT_S = -1.0
ROOT = Path(__file__).parents[2]

CLAIM_WHEN_TOLD = """
import sys
from app.storage.records import SqlRecords
records = SqlRecords(sys.argv[1])
records.check()
print("ready", flush=True)
sys.stdin.readline()
print([records.claim(job, lease_s=60) is not None for job in sys.argv[2:]])
"""

USE_AFTER_FORK = """
import os, sys
from app.storage.records import SqlRecords
records = SqlRecords(sys.argv[1])
records.job(sys.argv[2])
child = os.fork()
if child == 0:
    os._exit(0 if records.claim(sys.argv[2], lease_s=60) else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert code == 0, code
assert records.job(sys.argv[2]).status == "running"
"""


def claimed(records: SqlRecords, job_id: str, *, lease_s: float = 60) -> Job:
    job = records.claim(job_id, lease_s=lease_s)
    assert job is not None
    return job


def test_a_claim_starts_a_queued_job(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    assert (job.status, job.fence, job.attempts) == ("running", 1, 1)
    assert job.started_at is not None
    assert records.job(job.id) == job


def test_a_running_job_is_not_claimed_while_its_lease_holds(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    assert records.claim(job.id, lease_s=60) is None
    assert records.job(job.id) == job


def test_a_job_whose_lease_ran_out_is_claimed_by_another(records: SqlRecords) -> None:
    first = claimed(records, a_kept_job(records).id, lease_s=RAN_OUT_S)
    second = claimed(records, first.id)
    assert (second.fence, second.attempts) == (2, 2)
    assert second.started_at == first.started_at


def test_an_unknown_job_cannot_be_claimed(records: SqlRecords) -> None:
    with pytest.raises(JobNotFound):
        records.claim("no-such", lease_s=60)


def test_of_threads_that_claim_one_job_at_once_one_wins(records: SqlRecords) -> None:
    job_id = a_kept_job(records).id
    start = threading.Barrier(8)

    def claim(_: int) -> Job | None:
        start.wait()
        return records.claim(job_id, lease_s=60)

    with ThreadPoolExecutor(8) as pool:
        won = [job for job in pool.map(claim, range(8)) if job is not None]
    assert len(won) == 1
    assert records.job(job_id).attempts == 1


def test_of_processes_that_claim_the_same_jobs_at_once_one_wins_each(
    records: SqlRecords, database_url: str
) -> None:
    ids = [a_kept_job(records).id for _ in range(20)]
    command = [sys.executable, "-c", CLAIM_WHEN_TOLD, database_url, *ids]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    answers = [eval(worker.communicate(timeout=60)[0]) for worker in workers]
    assert [one + other for one, other in zip(*answers, strict=True)] == [1] * len(ids)


def test_records_used_before_a_fork_work_in_the_child(
    records: SqlRecords, database_url: str
) -> None:
    job = a_kept_job(records)
    command = [sys.executable, "-c", USE_AFTER_FORK, database_url, job.id]
    subprocess.run(command, check=True, cwd=ROOT, timeout=60)


def test_a_heartbeat_renews_the_lease_and_notes_the_progress(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id, lease_s=RAN_OUT_S)
    asked = records.heartbeat(job.id, fence=job.fence, lease_s=60, modules_done=3, modules_total=14)
    assert not asked
    assert records.claim(job.id, lease_s=60) is None
    kept = records.job(job.id)
    assert (kept.modules_done, kept.modules_total) == (3, 14)


def test_a_worker_whose_fence_is_old_can_change_nothing(records: SqlRecords) -> None:
    old = claimed(records, a_kept_job(records).id, lease_s=RAN_OUT_S)
    new = claimed(records, old.id)
    with pytest.raises(LeaseLost):
        records.heartbeat(old.id, fence=old.fence, lease_s=60, modules_done=1, modules_total=2)
    with pytest.raises(LeaseLost):
        records.finish(old.id, fence=old.fence, status="failed")
    with pytest.raises(LeaseLost):
        records.release(old.id, fence=old.fence)
    assert records.job(old.id) == new


def test_a_released_job_is_queued_and_its_old_fence_is_worth_nothing(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    records.release(job.id, fence=job.fence)
    assert records.job(job.id).status == "queued"
    with pytest.raises(LeaseLost):
        records.heartbeat(job.id, fence=job.fence, lease_s=60, modules_done=1, modules_total=2)
    assert claimed(records, job.id).fence == 2


def test_a_job_that_succeeds_keeps_its_result(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    result = JobResult(report=entry_of(b"report"), archive=entry_of(b"archive"))
    done = records.finish(job.id, fence=job.fence, status="succeeded", result=result)
    assert (done.status, done.result, done.fault) == ("succeeded", result, None)
    assert done.finished_at is not None
    assert done.started_at is not None
    assert done.finished_at >= done.started_at
    assert records.job(job.id) == done


def test_a_job_that_fails_keeps_its_fault(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    fault = Fault.of(RankMismatch(module="m\x00\ud800", expected=8, tensor="t", found=16))
    done = records.finish(job.id, fence=job.fence, status="failed", fault=fault)
    assert (done.status, done.fault, done.result) == ("failed", fault, None)
    assert records.job(job.id) == done


def test_a_checkpoint_is_kept_and_the_attempts_count_anew(records: SqlRecords) -> None:
    first = claimed(records, a_kept_job(records).id, lease_s=RAN_OUT_S)
    job = claimed(records, first.id)
    for step in (50, 100):
        checkpoint = Checkpointed(step, entry_of(b"checkpoint %d" % step))
        records.note_checkpoint(job.id, fence=job.fence, checkpoint=checkpoint)
        assert records.named_files() >= {checkpoint.file.sha256}
    kept = records.job(job.id)
    assert (kept.checkpoint, kept.attempts, kept.fence) == (checkpoint, 1, 2)


def test_a_worker_whose_fence_is_old_keeps_no_checkpoint(records: SqlRecords) -> None:
    old = claimed(records, a_kept_job(records).id, lease_s=RAN_OUT_S)
    new = claimed(records, old.id)
    checkpoint = Checkpointed(1, entry_of(b"checkpoint"))
    with pytest.raises(LeaseLost):
        records.note_checkpoint(old.id, fence=old.fence, checkpoint=checkpoint)
    assert records.job(old.id) == new
    records.finish(new.id, fence=new.fence, status="failed")
    with pytest.raises(LeaseLost):
        records.note_checkpoint(new.id, fence=new.fence, checkpoint=checkpoint)


def test_a_checkpoint_goes_on_with_the_job_that_is_given_back(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    checkpoint = Checkpointed(7, entry_of(b"checkpoint"))
    records.note_checkpoint(job.id, fence=job.fence, checkpoint=checkpoint)
    records.release(job.id, fence=job.fence)
    assert claimed(records, job.id).checkpoint == checkpoint


@pytest.mark.parametrize(
    ("status", "is_kept"), [("succeeded", False), ("cancelled", False), ("failed", True)]
)
def test_the_checkpoint_is_kept_of_a_job_that_failed(
    records: SqlRecords, status: JobStatus, is_kept: bool
) -> None:
    job = claimed(records, a_kept_job(records).id)
    checkpoint = Checkpointed(7, entry_of(b"checkpoint"))
    records.note_checkpoint(job.id, fence=job.fence, checkpoint=checkpoint)
    done = records.finish(job.id, fence=job.fence, status=status)
    assert done.checkpoint == records.job(job.id).checkpoint == (checkpoint if is_kept else None)


def test_a_queued_job_that_is_cancelled_drops_its_checkpoint(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    checkpoint = Checkpointed(7, entry_of(b"checkpoint"))
    records.note_checkpoint(job.id, fence=job.fence, checkpoint=checkpoint)
    assert records.request_cancel(job.id).checkpoint == checkpoint  # it still runs
    records.release(job.id, fence=job.fence)
    assert records.request_cancel(job.id).checkpoint is None
    assert checkpoint.file.sha256 not in records.named_files()


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_finished_job_is_left_alone(records: SqlRecords, status: JobStatus) -> None:
    job = claimed(records, a_kept_job(records).id, lease_s=RAN_OUT_S)
    done = records.finish(job.id, fence=job.fence, status=status)
    assert records.claim(job.id, lease_s=60) is None
    assert records.take_orphans(queued_for_s=-1, queue_is_short=True) == []
    with pytest.raises(LeaseLost):
        records.finish(job.id, fence=job.fence, status="failed")
    with pytest.raises(JobAlreadyFinished, match=status):
        records.request_cancel(job.id)
    assert records.job(job.id) == done


def test_a_job_does_not_finish_as_running(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    with pytest.raises(ValueError, match="final"):
        records.finish(job.id, fence=job.fence, status="running")


def test_a_queued_job_is_cancelled_at_once(records: SqlRecords) -> None:
    job = records.request_cancel(a_kept_job(records).id)
    assert (job.status, job.cancel_requested) == ("cancelled", True)
    assert job.finished_at is not None
    assert records.claim(job.id, lease_s=60) is None


def test_a_running_job_is_asked_to_stop_and_hears_it_at_its_heartbeat(records: SqlRecords) -> None:
    job = claimed(records, a_kept_job(records).id)
    for _ in range(2):  # asking twice is asking once
        asked = records.request_cancel(job.id)
        assert (asked.status, asked.cancel_requested, asked.finished_at) == ("running", True, None)
    assert records.heartbeat(job.id, fence=1, lease_s=60, modules_done=1, modules_total=2)
    assert records.finish(job.id, fence=1, status="cancelled").status == "cancelled"


def test_orphans_are_jobs_long_queued_or_with_their_lease_run_out(records: SqlRecords) -> None:
    queued = a_kept_job(records).id
    lost = claimed(records, a_kept_job(records).id, lease_s=RAN_OUT_S).id
    claimed(records, a_kept_job(records).id)
    assert records.take_orphans(queued_for_s=60, queue_is_short=True) == []
    assert records.take_orphans(queued_for_s=0, queue_is_short=False) == [(lost, "patch")]
    found = records.take_orphans(queued_for_s=0, queue_is_short=True)
    assert found == [(queued, "patch"), (lost, "patch")]
    assert records.take_orphans(queued_for_s=60, queue_is_short=True) == []  # somebody has them
    assert records.count_queued() == 1


def test_a_job_given_back_again_and_again_rests_longer_each_time(records: SqlRecords) -> None:
    job_id = a_kept_job(records).id
    for _ in range(4):  # rests of 5, 10, 20 and 40 seconds
        records.release(job_id, fence=claimed(records, job_id).fence)
    assert records.take_orphans(queued_for_s=-35, queue_is_short=True) == []
    assert records.take_orphans(queued_for_s=-45, queue_is_short=True) == [(job_id, "patch")]


def test_a_job_just_released_has_not_been_queued_for_long(records: SqlRecords) -> None:
    old = a_kept_job(records)
    job = claimed(records, old.id)
    records.release(job.id, fence=job.fence)
    assert records.take_orphans(queued_for_s=30, queue_is_short=True) == []


def test_the_revisions_of_a_jobs_models_are_kept_for_its_next_attempt(
    records: SqlRecords,
) -> None:
    job = claimed(records, a_kept_job(records).id)
    revisions = {"org/base": "a" * 40, "org/chat@main": "b" * 40}
    records.note_revisions(job.id, fence=job.fence, revisions=revisions)
    assert records.job(job.id).revisions == revisions
    records.release(job.id, fence=job.fence)
    again = records.claim(job.id, lease_s=60)
    assert again is not None
    assert again.revisions == revisions
    with pytest.raises(LeaseLost):
        records.note_revisions(job.id, fence=job.fence, revisions={})
