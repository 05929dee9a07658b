"""The files of a patched adapter, as a pull request proposes them."""

import shutil
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from app.domain.adapter import (
    CONFIG_FILE,
    README_FILE,
    REPORT_FILE,
    WEIGHTS_FILE,
    FileEntry,
    StoredAdapter,
    adapter_id,
)
from app.domain.errors import ArtifactCorrupt, Unavailable
from app.jobs.ports import Artifacts

PROPOSED = (CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE)


@dataclass(frozen=True)
class PatchedFiles:
    folder: Path
    files: Mapping[str, Path]  # by their names in a repository
    content: str  # content id
    card: str | None  # the repository's README.md before; None where it has none that can be kept


def content_id(files: Mapping[str, FileEntry]) -> str:
    """SHA-256 (hex) over what an adapter computes: its weights and its configuration."""
    return adapter_id({name: files[name] for name in (CONFIG_FILE, WEIGHTS_FILE)})


@contextmanager
def patched_files(
    archive: FileEntry, original: StoredAdapter, *, artifacts: Artifacts, staging_dir: Path
) -> Iterator[PatchedFiles]:
    """Out of a patch job's archive, in a folder that is gone afterwards.

    Raises ArtifactCorrupt, Unavailable.
    """
    folder = staging_dir / f"job-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
        artifacts.fetch(archive, folder / "archive")
        files = _unpack(folder / "archive", folder)
        card = _card(original, artifacts)
        entries = {name: _entry(path) for name, path in files.items()}
        yield PatchedFiles(folder, files, content_id(entries), card)
    except OSError as error:  # a full disk, most likely
        raise Unavailable(part="storage") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> dict[str, Path]:
    """Only the names that we know, so an archive says nothing about where it is written."""
    try:
        with zipfile.ZipFile(archive) as packed:
            return {name: Path(packed.extract(name, folder)) for name in PROPOSED}
    except (zipfile.BadZipFile, KeyError) as error:
        raise ArtifactCorrupt(what="adapter") from error


def _card(original: StoredAdapter, artifacts: Artifacts) -> str | None:
    """Intake takes a README.md as UTF-8 alone."""
    file = original.files.get(README_FILE)
    if file is None:
        return None
    raw = b"".join(artifacts.read(file, 0, file.size_bytes))
    return raw.decode("utf-8", "replace")


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(file_digest(file, "sha256").hexdigest(), path.stat().st_size)
