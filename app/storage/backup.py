"""A backup of a service with SQLite: the database first, then every file that it names.

    <folder>/backup.json        format, version, the schema's revision, the records' digest, when
    <folder>/records.sqlite3    as the database was at one moment
    <folder>/files/<sha256>     each checked by its digest
    <folder>/backup.lock        of the one backup at a time

In this order, because files are put before a record names them: each file of the copied records is
there. A restore goes the other way round, so that half of one is never taken for a service.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
ABOUT, RECORDS, FILES, LOCK = "backup.json", "records.sqlite3", "files", "backup.lock"
TEMPORARY = ".new"
SIDECARS = ("-wal", "-shm", "-journal")  # SQLite's, which it reads with whatever has their name
OURS = re.compile(
    rf"{ABOUT}({TEMPORARY})?|{RECORDS}({TEMPORARY})?({'|'.join(SIDECARS)})?|{FILES}|{LOCK}"
)
OUR_FILE = re.compile(rf"[0-9a-f]{{64}}({TEMPORARY})?")
TRIES = 3  # where retention takes files away meanwhile


@dataclass(frozen=True)
class Copied:
    revision: str | None  # of the schema
    files: int
    size_bytes: int
    new: int  # of the files: those that an earlier backup in this folder had not
    damaged: tuple[str, ...] = ()  # digests of files that could not be had


def back_up(database_url: str, artifacts: Artifacts, folder: Path) -> Copied:
    """Copy a service, which may be at work, into `folder`; an earlier backup there is brought up to
    date, and mended; it stays what it was until all of the new one is there. What is damaged in the
    service is left out and told.

    Raises InvalidField for another database than SQLite and a folder that holds something else, or
    is in use; FileNotFoundError, OSError, Unavailable.
    """
    source = _sqlite_path(database_url)
    if not source.is_file():
        raise FileNotFoundError(f"there is no database at {source}")
    _check_folder(folder)
    (folder / FILES).mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        folder.chmod(0o700)  # because the records hold secrets of webhooks
        fresh = folder / (RECORDS + TEMPORARY)
        files, new, damaged = _copy(source, artifacts, fresh, folder / FILES)
        revision = migrate.current(_url(fresh))
        _put_in_place(fresh, folder, revision)
        _prune(folder / FILES, {file.sha256 for file in files})
    kept = [file for file in files if file.sha256 not in damaged]
    return Copied(revision, len(kept), sum(f.size_bytes for f in kept), new, tuple(damaged))


def restore(folder: Path, database_url: str, artifacts: Artifacts) -> Copied:
    """Put a backup where no service is yet, and bring it to this version's schema.

    Raises InvalidField for a folder that is no backup, or a damaged one, one of a newer version,
    another database than SQLite and one of which anything is there already; OSError, Unavailable.
    """
    target = _sqlite_path(database_url)
    _check_backup(folder)
    for path in (target, *_sidecars(target)):  # a `-wal` alone would be read into the new one
        if path.exists():
            reason = f"{path} is there already; a backup goes to an empty place"
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


def _check_folder(folder: Path) -> None:
    """Nothing of somebody else's is to be overwritten or taken away, the service's own least."""
    entries = [path.name for path in folder.iterdir()] if folder.exists() else []
    others = [name for name in entries if not OURS.fullmatch(name)]
    if FILES in entries:
        inside = (path.name for path in (folder / FILES).iterdir())
        others += [f"{FILES}/{name}" for name in inside if not OUR_FILE.fullmatch(name)]
    if RECORDS in entries and not {ABOUT, LOCK} & set(entries):
        others.append(RECORDS)  # somebody's database, or this service's
    if others:
        reason = f"{folder} holds what is of no backup, {min(others)}: give it a folder of its own"
        raise InvalidField(field="backup", reason=reason)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = f"another backup is being made in {folder}"
            raise InvalidField(field="backup", reason=reason) from error
        yield


def _copy(
    source: Path, artifacts: Artifacts, records: Path, folder: Path
) -> tuple[list[FileEntry], int, list[str]]:
    """What the copied records name, how many files are new, and which cannot be had. Once more
    where one is missing because its record has meanwhile gone."""
    new = 0
    for _ in range(TRIES):
        _copy_database(source, records)
        files = _named_by(records)
        copied, damaged = _copy_files(files, artifacts, folder)
        new += copied
        if not damaged or {file.sha256 for file in _named_by(source)}.issuperset(damaged):
            break
    return files, new, damaged


def _copy_database(source: Path, target: Path) -> None:
    """What is committed at one moment, while others go on writing."""
    for path in (target, *_sidecars(target)):
        path.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise OSError(f"{source} cannot be copied: {error}") from error
    target.chmod(0o600)


def _sidecars(database: Path) -> list[Path]:
    return [database.with_name(database.name + ending) for ending in SIDECARS]


def _unpacked(records: Path, target: Path) -> Path:
    """The records at this version's schema, beside where they will be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(target.name + TEMPORARY)
    for path in _sidecars(fresh):  # of a restore that was cut short
        path.unlink(missing_ok=True)
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
    """How many were not there before, or not whole, and which cannot be had."""
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
        if not path.exists() or _sha256(path) != file.sha256:
            yield file


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _prune(folder: Path, named: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in named:
            path.unlink()


def _put_in_place(records: Path, folder: Path, revision: str | None) -> None:
    about = {
        "format": FORMAT,
        "version": version("adapter-safety"),
        "revision": revision,
        "records_sha256": _sha256(records),
        "at": datetime.now(UTC).isoformat(),
    }
    os.sync()  # because a backup is for the day on which the machine dies
    fresh = folder / (ABOUT + TEMPORARY)
    fresh.write_text(json.dumps(about, indent=2) + "\n")
    for path in _sidecars(folder / RECORDS):
        path.unlink(missing_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)  # for the moment in which the two do not fit
    records.replace(folder / RECORDS)
    fresh.replace(folder / ABOUT)
    os.sync()


def _check_backup(folder: Path) -> None:
    about = _read_about(folder)
    if about.get("format") != FORMAT:
        raise InvalidField(field="backup", reason=f"its format is not {FORMAT}")
    if not migrate.knows(about.get("revision")):
        reason = (
            f"its schema is {about.get('revision')}, which version {about.get('version')} has: "
        )
        raise InvalidField(field="backup", reason=reason + "restore it with that version or later")
    digest = about.get("records_sha256")  # not there in the first backups
    if digest is not None and _sha256(folder / RECORDS) != digest:
        raise InvalidField(field="backup", reason=f"its {RECORDS} is damaged")


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / ABOUT).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        reason = f"{folder} has no {ABOUT}: it is no backup, or one that was cut short"
        raise InvalidField(field="backup", reason=reason) from error
    return found if isinstance(found, dict) else {}


def _url(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"
