"""What is kept for how long, and taking away what is over its time.

Nothing that is referred to is taken: a job keeps what it names (adapters, data sets, parts, and the
job whose archive it measures), and a record its files. Files are looked at last, when the records
that named them are gone.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from app.jobs.ports import Artifacts, Events, Records, StoredFile
from app.jobs.webhook_ports import Webhooks

UNNAMED = timedelta(days=1)  # a file without a record, because an upload puts its files first


@dataclass(frozen=True)
class Retention:
    """For how long what has ended is kept; None is for ever."""

    results: timedelta | None = None  # jobs that have ended, with their reports and archives
    # since the last upload or use, where no job is left that names them; also data sets and parts
    adapters: timedelta | None = None
    folders: timedelta = timedelta(days=2)  # of killed processes; longer than any upload or job
    deliveries: timedelta | None = None  # webhooks' that have ended


@dataclass(frozen=True)
class Collected:
    """What was taken away, or would be."""

    jobs: int
    adapters: int
    files: int
    bytes: int
    folders: int
    datasets: int = 0
    parts: int = 0  # safety modules and kits
    deliveries: int = 0  # webhooks'


def collect(
    retention: Retention,
    *,
    records: Records,
    artifacts: Artifacts,
    events: Events,
    webhooks: Webhooks,
    staging_dir: Path,
    dry_run: bool = False,
) -> Collected:
    """Take away what is over its time. Safe to run beside the service, and several times at once.

    A dry run counts the files that no record names today, not those that would lose theirs.
    Raises Unavailable; what was taken away until then is.
    """
    jobs = _jobs(retention, records, events, dry_run=dry_run)
    adapters, datasets, parts = _uploads(retention, records, dry_run=dry_run)
    deliveries = _deliveries(retention, webhooks, dry_run=dry_run)
    files = list(_unnamed(records, artifacts))
    taken = [file for file in files if dry_run or artifacts.remove(file)]
    folders = list(_left(staging_dir, retention.folders))
    if not dry_run:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    size = sum(file.size_bytes for file in taken)
    uploads = (datasets, parts)
    return Collected(jobs, adapters, len(taken), size, len(folders), *uploads, deliveries)


def _jobs(retention: Retention, records: Records, events: Events, *, dry_run: bool) -> int:
    if retention.results is None:
        return 0
    ended = records.expire_jobs(retention.results, dry_run=dry_run)
    if not dry_run:
        for job_id in ended:
            events.forget(job_id)
    return len(ended)


def _uploads(retention: Retention, records: Records, *, dry_run: bool) -> tuple[int, int, int]:
    """Adapters, data sets and parts that went."""
    kept = retention.adapters
    if kept is None:
        return 0, 0, 0
    return (
        records.expire_adapters(kept, dry_run=dry_run),
        records.expire_datasets(kept, dry_run=dry_run),
        records.expire_parts(kept, dry_run=dry_run),
    )


def _deliveries(retention: Retention, webhooks: Webhooks, *, dry_run: bool) -> int:
    kept = retention.deliveries
    return 0 if kept is None else webhooks.expire(kept, dry_run=dry_run)


def _unnamed(records: Records, artifacts: Artifacts) -> Iterator[StoredFile]:
    """Old files that no record names. They are listed before the records are read: what is
    uploaded meanwhile is young."""
    old = list(artifacts.stored(older_than=UNNAMED))
    named = records.named_files() if old else set()
    return (file for file in old if file.sha256 not in named)


def _left(staging_dir: Path, kept: timedelta) -> Iterator[Path]:
    """Staging folders of processes that are long gone."""
    before = time.time() - kept.total_seconds()
    for pattern in ("upload-*", "job-*"):
        for folder in staging_dir.glob(pattern):
            if folder.stat().st_mtime < before:
                yield folder
