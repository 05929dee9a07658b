"""The models of the jobs that a worker has claimed together: their commits kept with each, their
downloads told to each."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.domain.errors import JobCancelled
from app.domain.job import Job
from app.jobs.held import Held
from app.jobs.ports import Models, Records
from app.jobs.submit import check_job, remote_models
from app.observe.watch import moved
from app.storage.hub.models import HubModels
from app.storage.hub.remote import Download
from app.storage.models import FolderModels

TELL_S = 1.0


@contextmanager
def opened(models: HubModels, held: Sequence[Held], records: Records) -> Iterator[Models]:
    """What the jobs name, as long as they are worked on. Jobs that go together were never claimed
    before, so that the first's commits are everybody's."""
    told = Told(held, records, dict(held[0].job.revisions))
    with models.opened(held[0].job.revisions, told.resolved, told.downloaded) as found:
        yield found


def check_remote(held: Held, models: HubModels, found: Models, records: Records) -> None:
    """What could not be checked when the job was submitted. Raises what `check_request` raises."""
    if is_perhaps_remote(held.job, models.folders):
        check_job(held.job, models=found, records=records.of(held.job.tenant))


def is_perhaps_remote(job: Job, folders: FolderModels) -> bool:
    """Whether whoever took the job may have been without one of its models: it may have had other
    folders than this worker has."""
    named = [job.chat_model, job.base_model or ""]
    return bool(remote_models(job, folders)) or any("/" in name for name in named)


@dataclass
class Told:
    """What the jobs are told of their models."""

    held: Sequence[Held]
    records: Records
    revisions: dict[str, str]
    _next_at: float = field(default=0.0)
    _counted: dict[str, int] = field(default_factory=dict)  # bytes, by model

    def resolved(self, model: str, sha: str) -> None:
        """Kept before a byte is read by it. Raises LeaseLost where no job is ours any more."""
        self.revisions[model] = sha
        for each in self._open():
            job = each.job
            each.attempt(lambda job=job: self._note(job.id, job.fence))  # type: ignore[misc] # because mypy knows no default of a lambda
        self._raise_if_alone()

    def _note(self, job_id: str, fence: int) -> None:
        self.records.note_revisions(job_id, fence=fence, revisions=self.revisions)

    def downloaded(self, download: Download) -> None:
        """Once a second. Raises JobCancelled where no job wants the bytes any more."""
        self._count(download)
        is_through = 0 < download.total_bytes == download.done_bytes
        if time.monotonic() < self._next_at and not is_through:
            return
        self._next_at = time.monotonic() + TELL_S
        for each in self._open():
            each.tell("download", _event(download))
            each.attempt(each.lease.check)
        self._raise_if_alone()

    def _count(self, download: Download) -> None:
        before = self._counted.get(download.model, 0)
        moved("models", max(download.done_bytes - before, 0))
        self._counted[download.model] = download.done_bytes

    def _open(self) -> list[Held]:
        return [each for each in self.held if each.is_open]

    def _raise_if_alone(self) -> None:
        """Each job has ended as it should by now; this ends the work."""
        if not self._open():
            raise JobCancelled


def _event(download: Download) -> dict[str, object]:
    return {
        "model": download.model,
        "done_bytes": download.done_bytes,
        "total_bytes": download.total_bytes,
    }
