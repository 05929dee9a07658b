"""Take an adapter from a hub's repository, through the same gate as an upload."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.domain.access import NO_QUOTAS, Quotas
from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE, StoredAdapter
from app.domain.errors import MissingFile, PickleRefused, TooLarge, Unavailable
from app.intake.limits import UPLOAD_LIMITS
from app.intake.manifest import read_manifest
from app.intake.names import is_pickle_name
from app.jobs.adapters import accept_adapter
from app.jobs.hub_ports import HubCommit, HubFile, HubReader
from app.jobs.ports import Artifacts, Records

FIELD = "hub.repo_id"
WANTED = (CONFIG_FILE, WEIGHTS_FILE, README_FILE)


@dataclass(frozen=True)
class Imported:
    adapter: StoredAdapter
    created: bool  # False where the same content was there already
    commit: HubCommit


@dataclass(frozen=True)
class Importer:
    """Where an import reads, works and stores."""

    hub: HubReader
    records: Records  # of the tenant whose adapter it will be
    artifacts: Artifacts
    staging_dir: Path
    max_upload_bytes: int
    quotas: Quotas = NO_QUOTAS

    def run(self, repo_id: str, revision: str | None) -> Imported:
        """Raises what `HubReader` and `read_manifest` raise, MissingFile, PickleRefused, TooLarge,
        QuotaExceeded, and Unavailable where the staging folder cannot be written."""
        commit = self.hub.commit(repo_id, revision, field=FIELD)
        wanted = wanted_files(commit, self.max_upload_bytes)
        with self._folder() as folder:
            for file in wanted:
                self.hub.download(commit, file, folder / file.name)
            manifest = read_manifest(folder)
            adapter, created = accept_adapter(
                folder,
                manifest,
                records=self.records,
                artifacts=self.artifacts,
                quotas=self.quotas,
            )
        return Imported(adapter, created, commit)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        work = self.staging_dir / f"upload-{uuid.uuid4().hex}"
        try:
            work.mkdir(parents=True)
            yield work
        except OSError as error:  # a full disk, most likely
            raise Unavailable(part="storage") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


def wanted_files(commit: HubCommit, max_upload_bytes: int) -> list[HubFile]:
    """An adapter's files at the repository's root, each within its limit.

    Raises MissingFile, TooLarge, and PickleRefused for a repository whose weights are pickled only.
    """
    files = {file.name: file for file in commit.files}
    if WEIGHTS_FILE not in files:
        for name in sorted(name for name in files if is_pickle_name(name)):
            raise PickleRefused(file=name)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in files:
            raise MissingFile(file=name)
    wanted = [files[name] for name in WANTED if name in files]
    for file in wanted:
        limit = min(UPLOAD_LIMITS.file_bytes[file.name], max_upload_bytes)
        if file.size_bytes > limit:
            raise TooLarge(what=file.name, limit_bytes=limit)
    return wanted
