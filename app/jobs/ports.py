"""What the use cases need from outside, as Protocols; `app.storage` has the real ones."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from app.domain.access import ApiKey, Scope
from app.domain.adapter import FileEntry, ListedAdapter, StoredAdapter
from app.domain.alignment import ListedPair, PairUsage
from app.domain.checkpoint import Checkpoint
from app.domain.dataset import StoredDataset
from app.domain.job import Checkpointed, Fault, Job, JobEvent, JobKind, JobResult, JobStatus
from app.domain.salora import ListedPart, Part, PartKind

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a listing, newest first; `cursor` (opaque) asks for the next, None at the end."""

    items: Sequence[T]
    cursor: str | None


@dataclass(frozen=True)
class IdempotencyKey:
    """A client's key and the digest of what it asked for under it."""

    key: str
    request_sha256: str


class Records(Protocol):
    """The database: the truth about adapters and jobs. Every method is one transaction.

    Adapters, jobs and idempotency keys are those of one tenant: another's are not there. What
    workers do (`claim` to `take_orphans`) is for all.
    """

    def of(self, tenant: str) -> "Records":
        """The same database, another tenant's."""

    def add_adapter(self, adapter: StoredAdapter, *, most_bytes: int | None = None) -> bool:
        """Keep an adapter; False when its id was there already (that it came again is noted).

        Raises QuotaExceeded where all of the tenant's would be more than `most_bytes`.
        """

    def adapter(self, adapter_id: str) -> StoredAdapter:
        """Raises AdapterNotFound."""

    def adapters(self, *, limit: int, cursor: str | None) -> Page[ListedAdapter]:
        """Raises InvalidField(field="cursor") for a cursor we did not make."""

    def add_dataset(self, dataset: StoredDataset, *, most_bytes: int | None = None) -> bool:
        """Keep a data set; False when its id was there already: that it came again is noted, and
        its token counts beside those that are there.

        Raises QuotaExceeded where all of the tenant's uploads would be more than `most_bytes`.
        """

    def dataset(self, dataset_id: str) -> StoredDataset:
        """Raises DatasetNotFound."""

    def datasets(self, *, limit: int, cursor: str | None) -> Page[StoredDataset]:
        """Raises InvalidField(field="cursor")."""

    def add_part(self, part: Part) -> Part:
        """Keep a safety module or kit; what is kept under its id, noted as used."""

    def find_part(self, kind: PartKind, part_id: str) -> Part | None:
        """The part, noted as used; None where there is none."""

    def part(self, kind: PartKind, part_id: str) -> Part:
        """Raises PartNotFound."""

    def parts(self, kind: PartKind, *, limit: int, cursor: str | None) -> Page[ListedPart]:
        """Raises InvalidField(field="cursor")."""

    def add_job(
        self, job: Job, idempotency: IdempotencyKey | None, *, most_queued: int | None = None
    ) -> Job:
        """Keep a queued job and return it, as the tenant's; under a key used before, return that
        request's job.

        Raises IdempotencyKeyReused when the key came with another content, QuotaExceeded where the
        tenant has `most_queued` jobs that have not ended, AdapterNotFound, DatasetNotFound,
        PartNotFound and JobNotFound where what it names is not there.
        """

    def job_for_key(self, idempotency: IdempotencyKey) -> Job | None:
        """The job an earlier request made under this key. Raises IdempotencyKeyReused."""

    def job(self, job_id: str) -> Job:
        """Raises JobNotFound."""

    def jobs(
        self, *, status: JobStatus | None, kind: JobKind | None, limit: int, cursor: str | None
    ) -> Page[Job]:
        """Raises InvalidField(field="cursor")."""

    def any_job(self, job_id: str) -> Job:
        """A job of whichever tenant, for workers. Raises JobNotFound."""

    def claim(self, job_id: str, *, lease_s: float) -> Job | None:
        """Take a job that is queued, or running with its lease run out: status running, fence and
        attempts one higher, started_at set once. None when there is nothing to take.

        Raises JobNotFound.
        """

    def claim_companions(
        self, job: Job, *, lease_s: float, most: int, most_bytes: int
    ) -> list[Job]:
        """Take up to `most` jobs that can go with a patch or score job in one pass, oldest first:
        of the same two models, queued, never claimed before, and with adapters that are, with this
        job's own, at most `most_bytes`. None for a job that is not coalesced.
        """

    def heartbeat(
        self, job_id: str, *, fence: int, lease_s: float, modules_done: int, modules_total: int
    ) -> bool:
        """Renew the lease and note the progress; True when a cancel was asked for.

        Raises LeaseLost when the fence is old or the job is no longer running.
        """

    def release(self, job_id: str, *, fence: int) -> None:
        """Give a running job back: queued again, the attempt not counted. Raises LeaseLost.

        It is found again by `take_orphans`, each time in a row after a longer pause.
        """

    def note_checkpoint(self, job_id: str, *, fence: int, checkpoint: Checkpointed) -> None:
        """Keep how far a running job has come, in the place of its checkpoint before; its attempts
        are one again, because a job that gets further is not what kills its workers.

        Raises LeaseLost when the fence is old or the job is no longer running.
        """

    def note_revisions(self, job_id: str, *, fence: int, revisions: Mapping[str, str]) -> None:
        """Keep the commits that a running job's models were resolved to, by model as named: later
        attempts take the same. Raises LeaseLost."""

    def finish(
        self,
        job_id: str,
        *,
        fence: int,
        status: JobStatus,
        result: JobResult | None = None,
        fault: Fault | None = None,
    ) -> Job:
        """Move a running job to a final status; its checkpoint is kept where it failed.

        Raises LeaseLost when the fence is old.
        """

    def request_cancel(self, job_id: str) -> Job:
        """A queued job is cancelled at once, a running one is asked to stop.

        Raises JobNotFound, JobAlreadyFinished.
        """

    def count_queued(self) -> int:
        """How many jobs are queued."""

    def take_orphans(
        self, *, queued_for_s: float, queue_is_short: bool
    ) -> list[tuple[str, JobKind]]:
        """Ids and kinds of jobs to send again, oldest first; each is given to one caller only.

        Those that run with their lease run out, and, where the queue holds fewer messages than
        there are queued jobs, those sent longer ago than `queued_for_s`.
        """

    def expire_jobs(self, kept: timedelta, *, dry_run: bool) -> list[str]:
        """Forget jobs that ended longer ago than `kept`, unless another names them; their ids."""

    def expire_adapters(self, kept: timedelta, *, dry_run: bool) -> int:
        """Forget the adapters of all tenants that came the last time longer ago than `kept`, where
        no job names them; how many."""

    def expire_datasets(self, kept: timedelta, *, dry_run: bool) -> int:
        """As `expire_adapters`, for data sets."""

    def expire_parts(self, kept: timedelta, *, dry_run: bool) -> int:
        """As `expire_adapters`, for safety modules and kits, by their last use."""

    def named_files(self) -> set[str]:
        """The SHA-256 of every file that a record of any tenant names."""

    def note_alignments(self, usages: Sequence[PairUsage]) -> None:
        """Keep what a cache holds of each pair now, and add up hits and misses."""

    def alignments(self, *, limit: int, cursor: str | None) -> Page[ListedPair]:
        """Pairs of models with kept alignments. Raises InvalidField(field="cursor")."""

    def check(self) -> None:
        """Raises Unavailable when the database does not answer or its schema is not current."""


@dataclass(frozen=True)
class StoredFile:
    """A file as the store lists it."""

    sha256: str
    size_bytes: int
    changed_at: datetime


class Artifacts(Protocol):
    """Files by their SHA-256. Putting the same content twice changes nothing."""

    def put(self, path: Path, file: FileEntry) -> None:
        """Publish a local file under its digest, whole or not at all."""

    def fetch(self, file: FileEntry, into: Path) -> None:
        """Write the file to `into` and check its digest. Raises ArtifactCorrupt."""

    def read(self, file: FileEntry, begin: int, end: int) -> Iterator[bytes]:
        """Bytes [begin, end) in pieces of bounded size."""

    def has(self, file: FileEntry) -> bool:
        """Whether a file of this digest and size is there. Raises Unavailable."""

    def stored(self, *, older_than: timedelta) -> Iterator[StoredFile]:
        """Every file that was put longer ago than that. Raises Unavailable."""

    def remove(self, file: StoredFile) -> bool:
        """Take a file away, unless it was put again since it was listed; whether it is gone now.
        Raises Unavailable."""

    def check(self) -> None:
        """Raises Unavailable when the store cannot be used."""

    def sweep(self) -> None:
        """Remove what puts of killed processes have left, a day after."""


class Queue(Protocol):
    """Hands job ids to the workers; losing one is repaired from the records."""

    def send(self, job_id: str, kind: JobKind) -> None:
        """Raises Unavailable when the broker does not answer."""

    def depth(self) -> int:
        """How many messages wait for a worker. Raises Unavailable."""

    def check(self) -> None:
        """Raises Unavailable."""


class Events(Protocol):
    """One append-only stream of events a job."""

    def publish(self, job_id: str, name: str, data: Mapping[str, object]) -> None:
        """Append an event. A broker that is away is logged, not raised: events only inform."""

    async def read(self, job_id: str, *, after: str, block_s: float) -> list[JobEvent]:
        """The events after id `after` ("0" for all), waiting up to `block_s` for the first.

        Raises Unavailable.
        """

    def forget(self, job_id: str) -> None:
        """Drop a job's stream. A broker that is away is logged: streams run out by themselves."""

    async def last(self, job_id: str) -> JobEvent | None:
        """The newest event, None where there is no stream. Raises Unavailable."""

    def workers_alive(self) -> int:
        """How many workers have lately shown that they do work. Raises Unavailable."""


class Models(Protocol):
    """The models that jobs may name."""

    def is_remote(self, model_id: str, *, field: str) -> bool:
        """Whether only a worker can look at the model, because it would come from a hub.

        Raises InvalidField, ModelNotAllowed.
        """

    def checkpoint(self, model_id: str, *, field: str) -> Checkpoint:
        """Raises InvalidField, UnknownModel or CheckpointRefused, each naming `field`."""


class Turns(Protocol):
    """One at a time, among all who share them. They save work and guard nothing."""

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Wait until the caller alone has the turn called `name`, or cannot have it in time."""


class Keys(Protocol):
    """API keys."""

    def verify(self, text: str) -> ApiKey | None:
        """The live key that `text` is; None for anything else. Notes the use."""

    def of(self, tenant: str) -> "Keys":
        """The same, where all but `verify` is of one tenant's keys alone."""

    def issue(self, name: str, scopes: Sequence[Scope]) -> tuple[ApiKey, str]:
        """A new key and its text, which is nowhere afterwards. Raises InvalidField."""

    def revoke(self, key_id: str) -> ApiKey:
        """From now on the key opens nothing. Raises KeyNotFound."""

    def page(self, *, limit: int, cursor: str | None) -> Page[ApiKey]:
        """Newest first, revoked ones too. Raises InvalidField(field="cursor")."""


class Limiter(Protocol):
    """How often each key may ask."""

    def take(self, key: str) -> None:
        """Count one request of this key. Raises RateLimited. A Redis that is away counts nothing:
        it stops no one."""
