"""The records on SQLAlchemy Core: `Records` of `app.jobs.ports`. Each method is one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from app.domain.access import DEFAULT_TENANT
from app.domain.adapter import ListedAdapter, StoredAdapter
from app.domain.alignment import ListedPair, PairUsage
from app.domain.dataset import StoredDataset
from app.domain.errors import AdapterNotFound, JobNotFound, Unavailable
from app.domain.job import Checkpointed, Fault, Job, JobKind, JobResult, JobStatus
from app.domain.salora import PART_NAMES, ListedPart, Part, PartKind
from app.domain.salora_errors import DatasetNotFound, PartNotFound
from app.jobs.ports import IdempotencyKey, Page
from app.storage import adapters, datasets, expiry, job_moves, migrate, parts, submissions
from app.storage.alignment_rows import note_usages, to_listed_pair
from app.storage.database import Database
from app.storage.pages import read_page
from app.storage.quotas import check_queued
from app.storage.rows import to_job
from app.storage.tables import alignments, jobs


class SqlRecords:
    """Adapters and jobs in SQLite (`sqlite:////path`) or PostgreSQL (`postgresql+psycopg://...`).

    Safe to share between threads, and to hold in a parent that forks: the connections are made on
    first use, by the process that uses them. Adapters, jobs and keys are one tenant's; what
    workers do to jobs is for all.
    """

    def __init__(self, url: str | Database, tenant: str = DEFAULT_TENANT) -> None:
        self._database = Database(url) if isinstance(url, str) else url
        self._tenant = tenant

    def of(self, tenant: str) -> "SqlRecords":
        """The same database, another tenant's."""
        return SqlRecords(self._database, tenant)

    def close(self) -> None:
        """Close this process's connections."""
        self._database.close()

    # ------------------------------------------------------------------------------- adapters
    def add_adapter(self, adapter: StoredAdapter, *, most_bytes: int | None = None) -> bool:
        """Keep an adapter; False when its id was there already (only `uploaded_at` changes then).

        Raises QuotaExceeded where all of the tenant's would be more than `most_bytes`.
        """
        with self._database.write() as connection:
            return adapters.add_adapter(connection, self._tenant, adapter, most_bytes)

    def adapter(self, adapter_id: str) -> StoredAdapter:
        """Raises AdapterNotFound."""
        if not _may_be_id(adapter_id):
            raise AdapterNotFound(adapter=adapter_id)
        with self._database.read() as connection:
            return adapters.find_adapter(connection, self._tenant, adapter_id)

    def adapters(self, *, limit: int, cursor: str | None) -> Page[ListedAdapter]:
        """Newest first. Raises InvalidField(field="cursor") for a cursor we did not make."""
        with self._database.read() as connection:
            return adapters.list_adapters(connection, self._tenant, limit=limit, cursor=cursor)

    # ------------------------------------------------------------- data sets, modules and kits
    def add_dataset(self, dataset: StoredDataset, *, most_bytes: int | None = None) -> bool:
        """Keep a data set; False when its id was there already, whose counts grow then.

        Raises QuotaExceeded where all of the tenant's would be more than `most_bytes`.
        """
        with self._database.write() as connection:
            return datasets.add_dataset(connection, self._tenant, dataset, most_bytes)

    def dataset(self, dataset_id: str) -> StoredDataset:
        """Raises DatasetNotFound."""
        if not _may_be_id(dataset_id):
            raise DatasetNotFound(dataset=dataset_id)
        with self._database.read() as connection:
            return datasets.find_dataset(connection, self._tenant, dataset_id)

    def datasets(self, *, limit: int, cursor: str | None) -> Page[StoredDataset]:
        """Newest first. Raises InvalidField(field="cursor")."""
        with self._database.read() as connection:
            return datasets.list_datasets(connection, self._tenant, limit=limit, cursor=cursor)

    def add_part(self, part: Part) -> Part:
        """Keep a safety module or kit; what is kept under its id, were it there already."""
        with self._database.write() as connection:
            return parts.add_part(connection, self._tenant, part)

    def find_part(self, kind: PartKind, part_id: str) -> Part | None:
        """The part, noted as used; None where there is none."""
        if not _may_be_id(part_id):
            return None
        with self._database.write() as connection:
            return parts.use_part(connection, self._tenant, kind, part_id)

    def part(self, kind: PartKind, part_id: str) -> Part:
        """Raises PartNotFound."""
        if not _may_be_id(part_id):
            raise PartNotFound(what=PART_NAMES[kind], id=part_id)
        with self._database.read() as connection:
            return parts.find_part(connection, self._tenant, kind, part_id)

    def parts(self, kind: PartKind, *, limit: int, cursor: str | None) -> Page[ListedPart]:
        """Newest first. Raises InvalidField(field="cursor")."""
        with self._database.read() as connection:
            return parts.list_parts(connection, self._tenant, kind, limit=limit, cursor=cursor)

    # ----------------------------------------------------------------------------------- jobs
    def add_job(
        self, job: Job, idempotency: IdempotencyKey | None, *, most_queued: int | None = None
    ) -> Job:
        """Keep a queued job and return it; under a key used before, return that request's job.

        Of two requests that race under one key, the one whose key is in first wins; the other
        waits for it to commit and gets its job. Raises IdempotencyKeyReused, and QuotaExceeded
        where the tenant has `most_queued` jobs that have not ended.
        """
        job = replace(job, tenant=self._tenant)
        with self._database.write() as connection:
            earlier = (
                None if idempotency is None else submissions.take_key(connection, idempotency, job)
            )
            if earlier is None:
                check_queued(connection, self._tenant, most_queued)
                submissions.insert_job(connection, job)
        return earlier or job

    def job_for_key(self, idempotency: IdempotencyKey) -> Job | None:
        """The job an earlier request made under this key. Raises IdempotencyKeyReused."""
        with self._database.read() as connection:
            return submissions.job_for_key(connection, idempotency, self._tenant)

    def job(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        _check_job_id(job_id)
        with self._database.read() as connection:
            return job_moves.find_job(connection, job_id, self._tenant)

    def jobs(
        self, *, status: JobStatus | None, kind: JobKind | None, limit: int, cursor: str | None
    ) -> Page[Job]:
        """Newest first. Raises InvalidField(field="cursor")."""
        asked = ((jobs.c.tenant, self._tenant), (jobs.c.status, status), (jobs.c.kind, kind))
        where = [column == value for column, value in asked if value is not None]
        with self._database.read() as connection:
            return read_page(connection, jobs, to_job, where=where, limit=limit, cursor=cursor)

    def any_job(self, job_id: str) -> Job:
        """A job of whichever tenant, for workers. Raises JobNotFound."""
        _check_job_id(job_id)
        with self._database.read() as connection:
            return job_moves.find_job(connection, job_id)

    def claim(self, job_id: str, *, lease_s: float) -> Job | None:
        """Take a job that is queued, or running with its lease run out; None when another has it.

        Raises JobNotFound.
        """
        with self._database.write() as connection:
            return job_moves.claim(connection, job_id, lease_s=lease_s)

    def claim_companions(
        self, job: Job, *, lease_s: float, most: int, most_bytes: int
    ) -> list[Job]:
        """Take queued jobs of the same two models, never claimed before, oldest first."""
        with self._database.write() as connection:
            return job_moves.claim_companions(
                connection, job, lease_s=lease_s, most=most, most_bytes=most_bytes
            )

    def heartbeat(
        self, job_id: str, *, fence: int, lease_s: float, modules_done: int, modules_total: int
    ) -> bool:
        """Renew the lease and note the progress; True when a cancel was asked for.

        Raises LeaseLost.
        """
        with self._database.write() as connection:
            return job_moves.heartbeat(
                connection,
                job_id,
                fence=fence,
                lease_s=lease_s,
                modules_done=modules_done,
                modules_total=modules_total,
            )

    def release(self, job_id: str, *, fence: int) -> None:
        """Give a running job back: queued again, the attempt not counted. Raises LeaseLost."""
        with self._database.write() as connection:
            job_moves.release(connection, job_id, fence=fence)

    def note_checkpoint(self, job_id: str, *, fence: int, checkpoint: Checkpointed) -> None:
        """Keep how far a running job has come. Raises LeaseLost."""
        with self._database.write() as connection:
            job_moves.note_checkpoint(connection, job_id, fence=fence, checkpoint=checkpoint)

    def note_revisions(self, job_id: str, *, fence: int, revisions: Mapping[str, str]) -> None:
        """Keep what a running job's models were resolved to. Raises LeaseLost."""
        with self._database.write() as connection:
            job_moves.note_revisions(connection, job_id, fence=fence, revisions=revisions)

    def finish(
        self,
        job_id: str,
        *,
        fence: int,
        status: JobStatus,
        result: JobResult | None = None,
        fault: Fault | None = None,
    ) -> Job:
        """Move a running job to a final status. Raises LeaseLost when the fence is old."""
        with self._database.write() as connection:
            return job_moves.finish(
                connection, job_id, fence=fence, status=status, result=result, fault=fault
            )

    def request_cancel(self, job_id: str) -> Job:
        """A queued job is cancelled at once, a running one is asked to stop.

        Raises JobNotFound, JobAlreadyFinished.
        """
        _check_job_id(job_id)
        with self._database.write() as connection:
            return job_moves.request_cancel(connection, job_id, self._tenant)

    def count_queued(self) -> int:
        """How many jobs are queued."""
        with self._database.read() as connection:
            return job_moves.count_queued(connection)

    def take_orphans(
        self, *, queued_for_s: float, queue_is_short: bool
    ) -> list[tuple[str, JobKind]]:
        """Jobs that the queue may have lost, oldest first; each is given to one caller only."""
        with self._database.write() as connection:
            return job_moves.take_orphans(
                connection, queued_for_s=queued_for_s, queue_is_short=queue_is_short
            )

    # --------------------------------------------------------------------------------- expiry
    def expire_jobs(self, kept: timedelta, *, dry_run: bool) -> list[str]:
        """Forget jobs of all tenants whose archives no job names; their ids."""
        gone: list[str] = []
        while True:
            with self._database.write() as connection:
                found = expiry.expire_jobs(connection, kept, dry_run=dry_run)
            gone += found
            if dry_run or len(found) < expiry.AT_ONCE:
                return gone

    def expire_adapters(self, kept: timedelta, *, dry_run: bool) -> int:
        """Forget adapters of all tenants that no job names; how many."""
        return expiry.in_rounds(self._database, expiry.expire_adapters, kept, dry_run=dry_run)

    def expire_datasets(self, kept: timedelta, *, dry_run: bool) -> int:
        """Forget data sets of all tenants that no job names; how many."""
        return expiry.in_rounds(self._database, expiry.expire_datasets, kept, dry_run=dry_run)

    def expire_parts(self, kept: timedelta, *, dry_run: bool) -> int:
        """Forget safety modules and kits of all tenants that no job names; how many."""
        return expiry.in_rounds(self._database, expiry.expire_parts, kept, dry_run=dry_run)

    def named_files(self) -> set[str]:
        """The SHA-256 of every file that a record of any tenant names."""
        with self._database.read() as connection:
            return expiry.named_files(connection)

    # ----------------------------------------------------------------------------- alignments
    def note_alignments(self, usages: Sequence[PairUsage]) -> None:
        """Keep what a cache holds of each pair now, and add up hits and misses."""
        with self._database.write() as connection:
            note_usages(connection, usages)

    def alignments(self, *, limit: int, cursor: str | None) -> Page[ListedPair]:
        """Newest first. Raises InvalidField(field="cursor")."""
        with self._database.read() as connection:
            return read_page(
                connection, alignments, to_listed_pair, where=[], limit=limit, cursor=cursor
            )

    def check(self) -> None:
        """Raises Unavailable when the database does not answer or its schema is not current."""
        with self._database.read() as connection:
            if migrate.revision_of(connection) != migrate.head():
                raise Unavailable(part="database")


def _check_job_id(job_id: str) -> None:
    if not _may_be_id(job_id):
        raise JobNotFound(job=job_id)


def _may_be_id(value: str) -> bool:
    """Our ids are printable ASCII; PostgreSQL refuses some of the rest (NUL, lone surrogates)."""
    return value.isascii() and value.isprintable()
