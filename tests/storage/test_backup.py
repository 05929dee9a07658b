"""Backups of a service with SQLite: what is in them, and what is refused."""

import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.domain.adapter import FileEntry
from app.domain.errors import InvalidField, Unavailable
from app.storage import migrate
from app.storage.artifacts import ObjectArtifacts, key_of
from app.storage.backup import ABOUT, FILES, LOCK, RECORDS, back_up, restore
from app.storage.records import SqlRecords
from tests.samples import a_dataset, a_file, a_job, an_adapter


@dataclass
class Place:
    """Where a service keeps its things."""

    folder: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/records.sqlite3"

    @property
    def artifacts(self) -> ObjectArtifacts:
        return ObjectArtifacts(self.folder / "artifacts")

    def keep(self, content: bytes) -> FileEntry:
        """A data set's record and its file."""
        self.folder.mkdir(exist_ok=True)
        path, file = a_file(self.folder, content)
        self.artifacts.put(path, file)
        path.unlink()
        records = SqlRecords(self.url)
        records.add_dataset(a_dataset(id=file.sha256, file=file))
        records.close()
        return file

    def datasets(self) -> set[str]:
        records = SqlRecords(self.url)
        found = records.datasets(limit=200, cursor=None).items
        records.close()
        return {each.id for each in found}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path / "here")
    migrate.upgrade(place.url)
    return place


@pytest.fixture
def other(tmp_path: Path) -> Place:
    return Place(tmp_path / "there")


def test_what_is_saved_is_restored_with_its_digests(
    place: Place, other: Place, tmp_path: Path
) -> None:
    files = {place.keep(content) for content in (b"one", b"two")}
    saved = back_up(place.url, place.artifacts, tmp_path / "backup")
    assert (saved.files, saved.new, saved.size_bytes, saved.damaged) == (2, 2, 6, ())
    restored = restore(tmp_path / "backup", other.url, other.artifacts)
    assert (restored.revision, restored.files) == (migrate.head(), 2)
    assert other.datasets() == {file.sha256 for file in files}
    for file in files:
        other.artifacts.fetch(file, tmp_path / "fetched")
    assert {path.name for path in other.folder.iterdir()} == {"records.sqlite3", "artifacts"}


def test_a_second_backup_copies_what_is_new_and_drops_what_no_record_names(
    place: Place, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    gone, kept = place.keep(b"gone"), place.keep(b"kept")
    back_up(place.url, place.artifacts, backup)
    with closing(sqlite3.connect(place.folder / "records.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM datasets WHERE id = ?", (gone.sha256,))
    new = place.keep(b"new")
    (backup / FILES / new.sha256).write_bytes(b"ne")  # as a backup that was cut short leaves it
    again = back_up(place.url, place.artifacts, backup)
    assert (again.files, again.new) == (2, 1)
    assert {path.name for path in (backup / FILES).iterdir()} == {kept.sha256, new.sha256}


def test_a_backup_beside_writers_has_every_file_that_its_records_name(
    place: Place, other: Place, tmp_path: Path
) -> None:
    stopped = threading.Event()

    def write() -> None:
        for number in range(10_000):
            if stopped.is_set():
                return
            place.keep(f"row {number}".encode())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [back_up(place.url, place.artifacts, tmp_path / "backup") for _ in range(5)]
    finally:
        stopped.set()
        writer.join()
    assert all(not each.damaged for each in found)
    restored = restore(tmp_path / "backup", other.url, other.artifacts)
    assert restored.files == found[-1].files == len(other.datasets())


def test_what_the_service_itself_has_lost_is_told_and_the_rest_is_saved(
    place: Place, other: Place, tmp_path: Path
) -> None:
    lost, bad, good, rotten = (place.keep(text) for text in (b"lost", b"bad", b"good", b"rotten"))
    (place.folder / "artifacts" / key_of(lost)).unlink()
    (place.folder / "artifacts" / key_of(bad)).write_bytes(b"dab")
    saved = back_up(place.url, place.artifacts, tmp_path / "backup")
    assert set(saved.damaged) == {lost.sha256, bad.sha256}
    (tmp_path / "backup" / FILES / rotten.sha256).write_bytes(b"nettor")  # on its disk since
    restored = restore(tmp_path / "backup", other.url, other.artifacts)
    assert set(restored.damaged) == {lost.sha256, bad.sha256, rotten.sha256}
    assert other.artifacts.has(good)
    assert not other.artifacts.has(rotten)


def test_a_backup_holds_secrets_and_so_is_its_owners_alone(place: Place, tmp_path: Path) -> None:
    back_up(place.url, place.artifacts, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "backup" / RECORDS).stat().st_mode & 0o777 == 0o600


def test_a_backup_of_an_older_version_is_brought_to_this_schema(
    place: Place, other: Place, tmp_path: Path
) -> None:
    records, adapter = SqlRecords(place.url), an_adapter()
    records.add_adapter(adapter)
    job = records.add_job(a_job(adapter), None)
    records.close()
    migrate.downgrade(place.url, "0002")
    about = {"format": 1, "version": "0.0.2", "revision": "0002"}
    backup = tmp_path / "backup"  # as that version would have made it
    (backup / FILES).mkdir(parents=True)
    (backup / ABOUT).write_text(json.dumps(about))
    (place.folder / "records.sqlite3").rename(backup / RECORDS)
    assert restore(backup, other.url, other.artifacts).revision == migrate.head()
    again = SqlRecords(other.url)
    assert again.job(job.id) == job
    again.close()


def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_is(
    place: Place, tmp_path: Path
) -> None:
    place.keep(b"one")
    (tmp_path / "mine" / "files").mkdir(parents=True)
    (tmp_path / "mine" / "files" / "thesis.tex").write_text("years")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / RECORDS).write_text("somebody's")
    (tmp_path / "kept" / "files").mkdir(parents=True)  # artifacts that are kept under that name
    (tmp_path / "kept" / "files" / "sha256").mkdir()
    for folder in (tmp_path / "mine", tmp_path / "bare", tmp_path / "kept", place.folder):
        before = {path: path.stat() for path in folder.rglob("*")}
        with pytest.raises(InvalidField, match="give it a folder of its own"):
            back_up(place.url, place.artifacts, folder)
        assert {path: path.stat().st_ino for path in folder.rglob("*")} == {
            path: stat.st_ino for path, stat in before.items()
        }


def test_a_backup_that_was_cut_short_or_has_rotted_is_made_whole(
    place: Place, other: Place, tmp_path: Path
) -> None:
    rotten, backup = place.keep(b"rotten"), tmp_path / "backup"
    back_up(place.url, place.artifacts, backup)
    (backup / FILES / rotten.sha256).write_bytes(b"nettor")
    (backup / ABOUT).unlink()
    (backup / f"{RECORDS}.new").write_bytes(b"half")
    assert back_up(place.url, place.artifacts, backup).new == 1
    assert restore(backup, other.url, other.artifacts).damaged == ()


def test_two_backups_into_one_folder_do_not_meet(place: Place, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    back_up(place.url, place.artifacts, backup)
    with (backup / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InvalidField, match="another backup is being made"):
            back_up(place.url, place.artifacts, backup)
    assert (backup / ABOUT).is_file()


class Away(ObjectArtifacts):
    def fetch(self, file: FileEntry, into: Path) -> None:
        raise Unavailable(part="storage")


def test_a_backup_that_is_cut_short_leaves_the_one_before_as_it_was(
    place: Place, other: Place, tmp_path: Path
) -> None:
    first, backup = place.keep(b"first"), tmp_path / "backup"
    back_up(place.url, place.artifacts, backup)
    place.keep(b"second")
    with pytest.raises(Unavailable):
        back_up(place.url, Away(place.folder / "artifacts"), backup)
    assert restore(backup, other.url, other.artifacts).damaged == ()
    assert other.datasets() == {first.sha256}


class Collecting(ObjectArtifacts):
    """Retention takes a record and its file away while files are copied."""

    def __init__(self, place: Place, gone: FileEntry) -> None:
        super().__init__(place.folder / "artifacts")
        self.place, self.gone = place, gone

    def fetch(self, file: FileEntry, into: Path) -> None:
        with closing(sqlite3.connect(self.place.folder / RECORDS)) as connection, connection:
            connection.execute("DELETE FROM datasets WHERE id = ?", (self.gone.sha256,))
        (self.place.folder / "artifacts" / key_of(self.gone)).unlink(missing_ok=True)
        super().fetch(file, into)


def test_what_retention_takes_away_meanwhile_is_no_damage(
    place: Place, other: Place, tmp_path: Path
) -> None:
    gone, kept = place.keep(b"gone"), place.keep(b"kept")
    saved = back_up(place.url, Collecting(place, gone), tmp_path / "backup")
    assert (saved.files, saved.damaged) == (1, ())
    restore(tmp_path / "backup", other.url, other.artifacts)
    assert other.datasets() == {kept.sha256}


def test_a_log_of_the_lost_database_is_not_read_into_the_restored_one(
    place: Place, other: Place, tmp_path: Path
) -> None:
    back_up(place.url, place.artifacts, tmp_path / "backup")
    other.folder.mkdir()
    (other.folder / f"{RECORDS}-wal").write_bytes(b"what a killed service left")
    with pytest.raises(InvalidField, match="sqlite3-wal is there already"):
        restore(tmp_path / "backup", other.url, other.artifacts)
    (other.folder / f"{RECORDS}-wal").rename(other.folder / f"{RECORDS}.new-wal")
    restore(tmp_path / "backup", other.url, other.artifacts)
    assert not (other.folder / f"{RECORDS}.new-wal").exists()


def test_a_database_that_cannot_be_read_is_told_in_a_sentence(place: Place, tmp_path: Path) -> None:
    (tmp_path / "torn.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match="cannot be copied"):
        back_up(f"sqlite:///{tmp_path}/torn.sqlite3", place.artifacts, tmp_path / "backup")


def refusals(backup: Path) -> Iterator[tuple[str, str]]:
    """Each spoils the backup, and what is then said of it."""
    about = json.loads((backup / ABOUT).read_text())
    (backup / ABOUT).write_text(json.dumps({**about, "revision": "9999"}))
    yield "a newer version", "its schema is 9999, which version"
    (backup / ABOUT).write_text(json.dumps({**about, "records_sha256": "0" * 64}))
    yield "other records", "its records.sqlite3 is damaged"
    (backup / ABOUT).write_text(json.dumps({**about, "format": 2}))
    yield "another format", "its format is not 1"
    (backup / ABOUT).write_text("[]")
    yield "no object", "its format is not 1"
    (backup / ABOUT).unlink()
    yield "one that was cut short", "has no backup.json"


def test_what_is_no_whole_backup_of_a_known_version_is_refused(
    place: Place, other: Place, tmp_path: Path
) -> None:
    back_up(place.url, place.artifacts, tmp_path / "backup")
    for _, said in refusals(tmp_path / "backup"):
        with pytest.raises(InvalidField, match=said):
            restore(tmp_path / "backup", other.url, other.artifacts)
    assert not other.folder.exists()


def test_a_service_that_is_there_is_never_overwritten(place: Place, tmp_path: Path) -> None:
    back_up(place.url, place.artifacts, tmp_path / "backup")
    with pytest.raises(InvalidField, match="is there already"):
        restore(tmp_path / "backup", place.url, place.artifacts)


def test_postgresql_has_tools_of_its_own_and_no_database_is_no_backup(
    place: Place, tmp_path: Path
) -> None:
    with pytest.raises(InvalidField, match="pg_dump"):
        back_up("postgresql+psycopg://u@h/d", place.artifacts, tmp_path / "backup")
    with pytest.raises(FileNotFoundError):
        back_up(f"sqlite:///{tmp_path}/none", place.artifacts, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
