"""Claiming the jobs that can go together, on SQLite and PostgreSQL."""

import json
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.domain.adapter import FileEntry, adapter_id
from app.domain.job import Job
from app.storage.records import SqlRecords
from tests.samples import a_job, a_kept_job, an_adapter

ROOT = Path(__file__).parents[2]
ROOMY = 1 << 40

CLAIM_ALL_WHEN_TOLD = """
import json, sys
from app.storage.records import SqlRecords
records = SqlRecords(sys.argv[1])
records.check()
print("ready", flush=True)
sys.stdin.readline()
mine = []
for job_id in sys.argv[2:]:
    job = records.claim(job_id, lease_s=60)
    if job is not None:
        more = records.claim_companions(job, lease_s=60, most=3, most_bytes=1 << 40)
        mine += [job.id, *(each.id for each in more)]
print(json.dumps(mine))
"""


def companions(
    records: SqlRecords, job: Job, *, most: int = 15, most_bytes: int = ROOMY, lease_s: float = 60
) -> list[Job]:
    return records.claim_companions(job, lease_s=lease_s, most=most, most_bytes=most_bytes)


def claimed(records: SqlRecords, **changes: Any) -> Job:
    job = records.claim(a_kept_job(records, **changes).id, lease_s=60)
    assert job
    return job


def of_size(records: SqlRecords, size_bytes: int) -> Job:
    files = {"adapter_model.safetensors": FileEntry(uuid.uuid4().hex * 2, size_bytes)}
    adapter = an_adapter(id=adapter_id(files), files=files)
    records.add_adapter(adapter)
    return records.add_job(a_job(adapter), None)


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def test_queued_jobs_of_the_pair_are_started_oldest_first(records: SqlRecords) -> None:
    first = claimed(records)
    waiting = [a_kept_job(records, kind=kind) for kind in ("patch", "score", "patch")]
    found = companions(records, first)
    assert ids(found) == ids(waiting)
    assert {(job.status, job.attempts, job.fence) for job in found} == {("running", 1, 1)}
    assert all(job.started_at and records.job(job.id) == job for job in found)


def test_they_are_held_under_a_lease_of_their_own(records: SqlRecords) -> None:
    first, waiting = claimed(records), a_kept_job(records)
    companions(records, first, lease_s=-1)
    again = records.claim(waiting.id, lease_s=60)
    assert again
    assert (again.fence, again.attempts) == (2, 2)
    assert records.claim(waiting.id, lease_s=60) is None


@pytest.mark.parametrize("changes", [{"base_model": "org/other"}, {"chat_model": "org/other"}])
def test_jobs_of_other_models_are_left(records: SqlRecords, changes: dict[str, Any]) -> None:
    first, other = claimed(records), a_kept_job(records, **changes)
    assert companions(records, first) == []
    assert records.job(other.id).status == "queued"


def test_alignments_go_alone(records: SqlRecords) -> None:
    first, other = claimed(records), a_kept_job(records, kind="alignment")
    assert companions(records, first) == []
    assert records.job(other.id).status == "queued"


def test_jobs_that_are_cancelled_running_or_were_claimed_before_are_left(
    records: SqlRecords,
) -> None:
    first = claimed(records)
    records.request_cancel(a_kept_job(records).id)
    running, returned, dead = claimed(records), claimed(records), a_kept_job(records)
    records.release(returned.id, fence=returned.fence)
    records.claim(dead.id, lease_s=-1)
    assert companions(records, first) == []
    assert records.job(running.id).fence == 1


def test_no_more_are_taken_than_asked_for(records: SqlRecords) -> None:
    first, waiting = claimed(records), [a_kept_job(records) for _ in range(4)]
    assert ids(companions(records, first, most=3)) == ids(waiting[:3])
    assert companions(records, first, most=0) == []


def test_their_adapters_are_bounded_together_with_the_first_ones(records: SqlRecords) -> None:
    first = records.claim(of_size(records, 40).id, lease_s=60)
    assert first
    small, large, exact = (of_size(records, size) for size in (30, 50, 29))
    assert ids(companions(records, first, most_bytes=99)) == [small.id, exact.id]
    assert records.job(large.id).status == "queued"


def test_a_first_adapter_that_fills_the_bound_goes_alone(records: SqlRecords) -> None:
    first = records.claim(of_size(records, 100).id, lease_s=60)
    assert first
    of_size(records, 1)
    assert companions(records, first, most_bytes=99) == []


def test_of_threads_that_take_batches_at_once_each_job_goes_to_one(records: SqlRecords) -> None:
    waiting = [a_kept_job(records).id for _ in range(24)]
    start = threading.Barrier(4)

    def take(own: str) -> list[str]:
        start.wait()
        first = records.claim(own, lease_s=60)
        return [own, *ids(companions(records, first, most=5))] if first else []

    with ThreadPoolExecutor(4) as pool:
        taken = [job for batch in pool.map(take, waiting[:4]) for job in batch]
    assert len(taken) == len(set(taken))
    assert {job for job in waiting if records.job(job).attempts == 1} == set(taken)


def test_of_processes_that_take_batches_at_once_each_job_goes_to_one(
    records: SqlRecords, database_url: str
) -> None:
    waiting = [a_kept_job(records).id for _ in range(24)]
    command = [sys.executable, "-c", CLAIM_ALL_WHEN_TOLD, database_url, *waiting]
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
    taken = [job for worker in workers for job in json.loads(worker.communicate(timeout=60)[0])]
    assert sorted(taken) == sorted(waiting)
