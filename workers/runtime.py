"""Wires a worker: settings, stores, threads. Called in the child process, after the fork."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.config import Settings
from app.domain.job import Job, JobResult, JobStatus
from app.jobs.lease import Lease
from app.jobs.ports import Artifacts, Events, Models, Records
from app.jobs.run import run_job
from app.storage.alignment_cache import AlignmentCache, Pair
from app.storage.artifacts import ObjectArtifacts
from app.storage.events import RedisEvents
from app.storage.models import FolderModels
from app.storage.records import SqlRecords
from app.storage.turns import RedisTurns
from workers.patch_job import PatchJob
from workers.shelf import Shelf


@dataclass(frozen=True)
class Runtime:
    """What a task needs; made once in each worker process."""

    records: Records
    artifacts: Artifacts
    events: Events
    models: Models
    staging_dir: Path
    threads: int
    lease_s: float
    cache: AlignmentCache | None
    turns: RedisTurns

    def run(self, job_id: str) -> JobStatus | None:
        """Run one job to its end. None when there was nothing to claim."""
        return run_job(
            job_id, self._work, records=self.records, events=self.events, lease_s=self.lease_s
        )

    def _work(self, job: Job, lease: Lease) -> JobResult:
        with self._folder(job) as folder:
            return PatchJob(
                records=self.records,
                artifacts=self.artifacts,
                models=self.models,
                folder=folder,
                threads=self.threads,
                shelves=self._shelf if self.cache else None,
            ).run(job, lease)

    def _shelf(self, pair: Pair) -> Shelf:
        if self.cache is None:
            raise ValueError("there is no alignment cache")
        return Shelf(self.cache.pair(pair), self.turns.turn)

    @contextmanager
    def _folder(self, job: Job) -> Iterator[Path]:
        """A folder of this attempt's own, gone afterwards; a killed attempt's goes first."""
        for left in self.staging_dir.glob(f"job-{job.id}-*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = self.staging_dir / f"job-{job.id}-{job.fence}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@cache
def runtime() -> Runtime:
    """This process's runtime, from the environment. Not to be called before the fork."""
    return make_runtime(Settings())


def make_runtime(settings: Settings) -> Runtime:
    return Runtime(
        records=SqlRecords(settings.resolved_database_url),
        artifacts=ObjectArtifacts(settings.resolved_storage_url),
        events=RedisEvents(settings.resolved_redis_url),
        models=FolderModels(settings.resolved_model_root),
        staging_dir=settings.staging_dir,
        threads=settings.resolved_threads,
        lease_s=settings.lease_s,
        cache=_cache(settings),
        turns=RedisTurns(settings.resolved_redis_url),
    )


def _cache(settings: Settings) -> AlignmentCache | None:
    limit = settings.alignment_cache_bytes
    return AlignmentCache(settings.resolved_alignment_dir, limit) if limit else None
