"""A backup of a service with SQLite: the database first, then every file that it names.

    <folder>/backup.json        format, version, the schema's revision, when
    <folder>/records.sqlite3    as the database was at one moment
    <folder>/files/<sha256>     each checked by its digest

In this order, because files are put before a record names them: each file of the copied records is
there. A restore goes the other way round, so that half of one is never taken for a service.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from app.domain.adapter import FileEntry
from app.domain.errors import ArtifactCorrupt, InvalidField
from app.jobs.ports import Artifacts
from app.storage import migrate
from app.storage.database import Database
from app.storage.expiry import named_entries

FORMAT = 1
ABOUT, RECORDS, FILES = "backup.json", "records.sqlite3", "files"
TEMPORARY = ".new"


@dataclass(frozen=True)
class Copied:
    revision: str | None  # of the schema
    files: int
    size_bytes: int
    new: int  # of the files: those that an earlier backup in this folder had not
    damaged: tuple[str, ...] = ()  # digests of files that could not be had


def back_up(database_url: str, artifacts: Artifacts, folder: Path) -> Copied:
    """Copy a service, which may be at work, into `folder`; an earlier backup there is brought up to
    date. What is damaged in the service is left out and told.

    Raises InvalidField for another database than SQLite, FileNotFoundError, OSError, Unavailable.
    """
    source = _sqlite_path(database_url)
    if not source.is_file():
        raise FileNotFoundError(f"there is no database at {source}")
    (folder / FILES).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # because the records hold secrets of webhooks
    (folder / ABOUT).unlink(missing_ok=True)  # until all is there
    _copy_database(source, folder / RECORDS)
    files = _named_by(folder / RECORDS)
    new, damaged = _copy_files(files, artifacts, folder / FILES)
    _prune(folder / FILES, {file.sha256 for file in files})
    revision = migrate.current(_url(folder / RECORDS))
    _write_about(folder, revision)
    kept = [file for file in files if file.sha256 not in damaged]
    return Copied(revision, len(kept), sum(f.size_bytes for f in kept), new, tuple(damaged))


def restore(folder: Path, database_url: str, artifacts: Artifacts) -> Copied:
    """Put a backup where no service is yet, and bring it to this version's schema.

    Raises InvalidField for a folder that is no backup, one of a newer version, another database
    than SQLite and one that is there already; OSError, Unavailable.
    """
    target = _sqlite_path(database_url)
    _check_backup(folder)
    if target.exists():
        reason = f"{target} is there already; a backup goes to an empty place"
        raise InvalidField(field="database", reason=reason)
    fresh = _unpacked(folder / RECORDS, target)
    named = _named_by(fresh)
    damaged = tuple(file.sha256 for file in named if not _put_back(file, folder, artifacts))
    fresh.replace(target)
    size = sum(file.size_bytes for file in named if file.sha256 not in damaged)
    files = len(named) - len(damaged)
    return Copied(migrate.current(database_url), files, size, files, damaged)


# ------------------------------------------------------------------------------------------ parts
def _sqlite_path(database_url: str) -> Path:
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        reason = "this is for SQLite; PostgreSQL has pg_dump and pg_restore, see docs/backup.md"
        raise InvalidField(field="ADAPTER_SAFETY_DATABASE_URL", reason=reason)
    return Path(url.database)


def _copy_database(source: Path, target: Path) -> None:
    """What is committed at one moment, while others go on writing."""
    fresh = target.with_name(target.name + TEMPORARY)
    fresh.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("VACUUM INTO ?", (str(fresh),))
    fresh.chmod(0o600)
    fresh.replace(target)


def _unpacked(records: Path, target: Path) -> Path:
    """The records at this version's schema, beside where they will be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(target.name + TEMPORARY)
    shutil.copyfile(records, fresh)
    fresh.chmod(0o600)
    migrate.upgrade(_url(fresh))
    Path(f"{fresh}.lock").unlink()
    return fresh


def _put_back(file: FileEntry, folder: Path, artifacts: Artifacts) -> bool:
    """Whether the backup has the file, and has it whole."""
    try:
        artifacts.put(folder / FILES / file.sha256, file)
    except (FileNotFoundError, ArtifactCorrupt):
        return False
    return True


def _named_by(records: Path) -> list[FileEntry]:
    database = Database(_url(records))
    try:
        with database.read() as connection:
            return sorted(named_entries(connection), key=lambda file: file.sha256)
    finally:
        database.close()


def _copy_files(
    files: list[FileEntry], artifacts: Artifacts, folder: Path
) -> tuple[int, list[str]]:
    """How many were not there before, and which cannot be had."""
    new, damaged = 0, []
    for file in _not_in(folder, files):
        fresh = folder / (file.sha256 + TEMPORARY)
        try:
            artifacts.fetch(file, fresh)
        except ArtifactCorrupt:
            damaged.append(file.sha256)
            continue
        fresh.replace(folder / file.sha256)
        new += 1
    return new, damaged


def _not_in(folder: Path, files: list[FileEntry]) -> Iterator[FileEntry]:
    for file in files:
        path = folder / file.sha256
        if not path.exists() or path.stat().st_size != file.size_bytes:
            yield file


def _prune(folder: Path, named: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in named:
            path.unlink()


def _write_about(folder: Path, revision: str | None) -> None:
    about = {
        "format": FORMAT,
        "version": version("adapter-safety"),
        "revision": revision,
        "at": datetime.now(UTC).isoformat(),
    }
    fresh = folder / (ABOUT + TEMPORARY)
    fresh.write_text(json.dumps(about, indent=2) + "\n")
    fresh.replace(folder / ABOUT)
    os.sync()  # because a backup is for the day on which the machine dies


def _check_backup(folder: Path) -> None:
    about = _read_about(folder)
    if about.get("format") != FORMAT:
        raise InvalidField(field="backup", reason=f"its format is not {FORMAT}")
    if not migrate.knows(about.get("revision")):
        reason = (
            f"its schema is {about.get('revision')}, which version {about.get('version')} has: "
        )
        raise InvalidField(field="backup", reason=reason + "restore it with that version or later")


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / ABOUT).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        reason = f"{folder} has no {ABOUT}: it is no backup, or one that was cut short"
        raise InvalidField(field="backup", reason=reason) from error
    return found if isinstance(found, dict) else {}


def _url(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"
