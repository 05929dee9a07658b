"""SaLoRA's jobs where they may last: a cancel is noticed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.dataset import Row
from app.domain.job import Job, JobResult
from app.jobs.cancel import cancel
from app.jobs.lease import Lease
from app.jobs.run import Desk, alone, run_job
from app.storage.artifacts import ObjectArtifacts
from app.storage.events import RedisEvents
from app.storage.models import FolderModels
from app.storage.records import SqlRecords
from tests.jobs.test_run import ListQueue
from tests.samples import a_kept_job
from tests.workers.salora_world import CPU, task
from workers import salora_jobs
from workers.salora_jobs import SaloraJob


def test_a_job_that_is_cancelled_while_it_reads_its_data_ends_there(
    records: SqlRecords, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salora_jobs, "CHECK_EVERY_S", 0.0)
    events = RedisEvents(redis_url)
    artifacts = ObjectArtifacts(f"file://{tmp_path}/artifacts")

    def cancelled_at_the_second(job: Job) -> Iterator[Row]:
        for row in task(5):
            if row.line == 2:
                cancel(job.id, records=records, events=events)
            yield row

    def work(job: Job, lease: Lease) -> JobResult:
        models = FolderModels(tmp_path)
        of_it = SaloraJob(job, lease, records, artifacts, models, tmp_path, CPU)
        list(of_it.checked(cancelled_at_the_second(job)))
        raise AssertionError("it was not noticed")

    job = a_kept_job(records)
    desk = Desk(records, events, ListQueue(), lease_s=60.0)
    assert run_job(job.id, alone(work), desk) == "cancelled"
