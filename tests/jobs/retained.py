"""A database, a store and a Redis with what a service would have left there, some of it old."""

import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, update

from app.domain.adapter import FileEntry, StoredAdapter
from app.domain.dataset import StoredDataset
from app.domain.job import Job, JobResult
from app.domain.salora import Part, PartKind
from app.jobs.ports import IdempotencyKey
from app.jobs.retain import Collected, Retention, collect
from app.storage.artifacts import ObjectArtifacts, key_of
from app.storage.events import RedisEvents
from app.storage.records import SqlRecords
from app.storage.tables import adapters, datasets, jobs, parts
from app.storage.webhooks import SqlWebhooks
from tests.samples import a_dataset, a_file, a_job, a_part, an_adapter

WEEK = timedelta(days=7)
EVERYTHING = Retention(results=WEEK, adapters=WEEK, deliveries=WEEK)
LONG_AGO = datetime.now(UTC) - timedelta(days=30)


class World:
    """A database, a store and a Redis, with what a service would have put there."""

    def __init__(self, url: str, folder: Path, redis_url: str) -> None:
        self.url, self.folder = url, folder
        self.records, self.artifacts = SqlRecords(url), ObjectArtifacts(folder / "artifacts")
        self.events = RedisEvents(redis_url)
        self.webhooks = SqlWebhooks(url)

    def collect(self, retention: Retention = EVERYTHING, *, dry_run: bool = False) -> Collected:
        return collect(
            retention,
            records=self.records,
            artifacts=self.artifacts,
            events=self.events,
            webhooks=self.webhooks,
            staging_dir=self.folder,
            dry_run=dry_run,
        )

    def file(self, content: bytes, *, aged: bool = True) -> FileEntry:
        path, file = a_file(self.folder, content)
        self.artifacts.put(path, file)
        if aged:
            self.age(file)
        return file

    def age(self, file: FileEntry) -> None:
        os.utime(self.path(file), (time.time() - 10 * 86400,) * 2)

    def path(self, file: FileEntry) -> Path:
        return self.folder / "artifacts" / key_of(file)

    def adapter(self, tenant: str = "a", *, aged: bool = True) -> StoredAdapter:
        sample = an_adapter()
        files = {name: self.file(f"{sample.id}{name}".encode()) for name in sample.files}
        adapter = an_adapter(id=sample.id, files=files)
        self.records.of(tenant).add_adapter(adapter)
        if aged:
            self._set(adapters, adapters.c.id == adapter.id, uploaded_at=LONG_AGO)
        return adapter

    def dataset(self, tenant: str = "a") -> StoredDataset:
        file = self.file(uuid.uuid4().bytes)
        dataset = a_dataset(id=file.sha256, file=file)
        self.records.of(tenant).add_dataset(dataset)
        self._set(datasets, datasets.c.id == dataset.id, uploaded_at=LONG_AGO)
        return dataset

    def part(self, kind: PartKind = "safety_module", tenant: str = "a") -> Part:
        file, report = (self.file(uuid.uuid4().bytes) for _ in range(2))
        part = self.records.of(tenant).add_part(a_part(kind, file=file, report=report))
        self.age_part(part)
        return part

    def age_part(self, part: Part) -> None:
        self._set(parts, parts.c.id == part.id, used_at=LONG_AGO)

    def end(self, job: Job, part: str | None = None, *, aged: bool = True, **files: Any) -> Job:
        """`files`: of its result besides the report."""
        claimed = self.records.claim(job.id, lease_s=60)
        assert claimed is not None
        report = self.file(f"report {job.id}".encode())
        result = JobResult(report, **{"archive": None, "part": part, **files})
        done = self.records.finish(job.id, fence=claimed.fence, status="succeeded", result=result)
        if aged:
            self.age_job(job)
        return done

    def age_job(self, job: Job) -> None:
        self._set(jobs, jobs.c.id == job.id, finished_at=LONG_AGO)

    def ended_job(self, adapter: StoredAdapter, *, aged: bool = True, tenant: str = "a") -> Job:
        records = self.records.of(tenant)
        job = records.add_job(a_job(adapter), IdempotencyKey(f"key of {adapter.id}", "0" * 64))
        self.events.publish(job.id, "succeeded", {})
        return self.end(job, aged=aged)

    def _set(self, table: Any, where: Any, **values: object) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(update(table).where(where).values(**values))
        engine.dispose()
