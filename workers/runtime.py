"""Wires a worker: settings, stores, threads. Called in the child process, after the fork."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import torch
from celery.exceptions import SoftTimeLimitExceeded

from app.alignment.device import DeviceCache
from app.config import Settings
from app.domain.errors import JobNotFound, TimeLimitReached, Unavailable
from app.domain.job import MEASURE_KINDS, SALORA_KINDS, Job, JobResult, JobStatus
from app.jobs.held import Held
from app.jobs.lease import Lease
from app.jobs.ports import Artifacts, Models, Turns
from app.jobs.run import Desk, alone, run_job
from app.observe.watch import phase
from app.storage.alignment_cache import AlignmentCache, Pair
from app.storage.artifacts import ObjectArtifacts
from app.storage.hub.models import HubModels
from app.storage.turns import RedisTurns
from workers.align_job import AlignJob
from workers.compute import Compute
from workers.desk import make_desk
from workers.job_models import check_remote, opened
from workers.models import hub_models
from workers.patch_job import PatchJobs
from workers.shelf import Shelf

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Used:
    """What a batch has opened: its models, and places in the alignment cache."""

    models: Models
    cache: AlignmentCache | None
    turns: Turns
    shelves: list[Shelf] = field(default_factory=list)

    def shelf(self, pair: Pair) -> Shelf:
        if self.cache is None:
            raise ValueError("there is no alignment cache")
        self.shelves.append(Shelf(self.cache.pair(pair), self.turns.turn))
        return self.shelves[-1]


@dataclass(frozen=True)
class Runtime:
    """What a task needs; made once in each worker process."""

    desk: Desk
    artifacts: Artifacts
    models: HubModels
    staging_dir: Path
    threads: int
    cache: AlignmentCache | None
    turns: Turns
    memory: DeviceCache | None = None
    time_limit_s: int = 0
    device: str = "cpu"  # where whole models run

    def run(self, job_id: str) -> JobStatus | None:
        """Run a job to its end, and those that can go with it. None when there was nothing to
        claim."""
        status = run_job(job_id, self._work, self.desk)
        if status is not None:  # ended, and by us: no other worker has a folder of it any more
            self._clear(job_id)
        return status

    def _work(self, held: Sequence[Held]) -> None:
        """Raises TimeLimitReached in whatever place the limit is."""
        try:
            self._work_on(held)
        except SoftTimeLimitExceeded as error:
            raise TimeLimitReached(limit_s=self.time_limit_s) from error

    def _work_on(self, held: Sequence[Held]) -> None:
        """The first job's kind is everybody's: only patch and score jobs go together."""
        with ExitStack() as stack:
            records = self.desk.records
            with phase("models"):
                models = stack.enter_context(opened(self.models, held, records))
                for each in held:
                    each.attempt(partial(check_remote, each, self.models, models, records))
            held = [each for each in held if each.is_open]
            folders = {each.job.id: stack.enter_context(self._folder(each.job)) for each in held}
            used = Used(models, self.cache, self.turns)
            if not held:
                return
            if held[0].job.kind == "alignment":
                alone(lambda job, lease: self._align(job, lease, folders[job.id], used))(held)
            elif held[0].job.kind in MEASURE_KINDS:
                with phase("measure"):
                    alone(lambda job, lease: self._measure(job, lease, folders[job.id], used))(held)
            elif held[0].job.kind in SALORA_KINDS:
                with phase("salora"):
                    alone(lambda job, lease: self._salora(job, lease, folders[job.id], used))(held)
            else:
                self._patch(held, folders, used)

    def _patch(self, held: Sequence[Held], folders: Mapping[str, Path], used: Used) -> None:
        self._patch_jobs(folders, used).run(held)
        self._note(used)

    def _patch_jobs(self, folders: Mapping[str, Path], used: Used) -> PatchJobs:
        return PatchJobs(
            records=self.desk.records,
            artifacts=self.artifacts,
            models=used.models,
            folder_of=lambda job: folders[job.id],
            threads=self.threads,
            shelves=used.shelf if self.cache else None,
            memory=self.memory,
            device=self.device,
        )

    def _align(self, job: Job, lease: Lease, folder: Path, used: Used) -> JobResult:
        result = AlignJob(
            records=self.desk.records,
            artifacts=self.artifacts,
            models=used.models,
            folder=folder,
            threads=self.threads,
            shelves=used.shelf if self.cache else None,
        ).run(job, lease)
        self._note(used)
        return result

    def _salora(self, job: Job, lease: Lease, folder: Path, used: Used) -> JobResult:
        from workers.salora_jobs import SaloraJob  # here, because transformers takes seconds

        return SaloraJob(
            job=job,
            lease=lease,
            records=self.desk.records.of(job.tenant),
            artifacts=self.artifacts,
            models=used.models,
            folder=folder,
            compute=Compute(self.threads, torch.device(self.device)),
        ).run()

    def _measure(self, job: Job, lease: Lease, folder: Path, used: Used) -> JobResult:
        from workers.measure_jobs import Fetcher, MeasureJob  # here, as above

        records = self.desk.records.of(job.tenant)
        result = MeasureJob(
            job=job,
            lease=lease,
            fetcher=Fetcher(records, self.artifacts, used.models, folder),
            compute=Compute(self.threads, torch.device(self.device)),
            patch_input=self._patch_jobs({job.id: folder}, used).input_of,
            shelves=used.shelf if self.cache else None,
        ).run()
        self._note(used)
        return result

    def _note(self, used: Used) -> None:
        """For the listing only: a database that is away, or a folder, costs no job."""
        try:
            for shelf in used.shelves:
                self.desk.records.note_alignments(shelf.usage())
        except (Unavailable, OSError) as error:
            logger.warning("the listing of alignments is not up to date: %s", error)

    @contextmanager
    def _folder(self, job: Job) -> Iterator[Path]:
        """A folder of this attempt's own, gone afterwards; a killed attempt's goes first."""
        self._clear(job.id)
        folder = self.staging_dir / f"job-{job.id}-{job.fence}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed attempts of jobs that have ended have left: a killed child cannot, and
        the next one starts with this. Half-written artifacts go a day later."""
        self.artifacts.sweep()
        for folder in self.staging_dir.glob("job-*-*"):
            job_id = folder.name.split("-")[1]
            try:
                if self.desk.records.any_job(job_id).is_final:
                    self._clear(job_id)
            except JobNotFound:
                self._clear(job_id)
            except Unavailable as error:
                logger.warning("%s is not cleared: %s", self.staging_dir, error)

    def _clear(self, job_id: str) -> None:
        """Remove what killed attempts have left."""
        for left in self.staging_dir.glob(f"job-{job_id}-*"):
            shutil.rmtree(left, ignore_errors=True)


@cache
def runtime() -> Runtime:
    """This process's runtime, from the environment. Not to be called before the fork."""
    return make_runtime(Settings())


def make_runtime(settings: Settings) -> Runtime:
    return Runtime(
        desk=make_desk(settings),
        artifacts=ObjectArtifacts(settings.resolved_storage_url),
        models=hub_models(settings),
        staging_dir=settings.staging_dir,
        threads=settings.resolved_threads,
        cache=_cache(settings),
        turns=RedisTurns(settings.resolved_redis_url),
        memory=_memory(settings),
        time_limit_s=settings.job_time_limit_s,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _memory(settings: Settings) -> DeviceCache | None:
    """Where there is a CUDA device, and it is wanted."""
    if settings.device_cache_bytes == 0 or not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    return DeviceCache(torch.device("cuda"), settings.device_cache_bytes)


def _cache(settings: Settings) -> AlignmentCache | None:
    limit = settings.alignment_cache_bytes
    return AlignmentCache(settings.resolved_alignment_dir, limit) if limit else None
