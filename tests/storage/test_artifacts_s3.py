"""Content-addressed files in a bucket, over a real S3 connection."""

import uuid
from datetime import timedelta
from pathlib import Path

import obstore
import pytest

from app.domain.adapter import FileEntry
from app.domain.errors import ArtifactCorrupt, Unavailable
from app.storage.artifacts import PART_BYTES, ObjectArtifacts, key_of
from tests.samples import a_file, entry_of
from tests.servers import S3Server, free_port

PREFIX = "some/prefix"


@pytest.fixture
def artifacts(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectArtifacts:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return ObjectArtifacts(s3.url(PREFIX))


def content(size: int) -> bytes:
    return uuid.uuid4().bytes + bytes(size)


def overwrite(artifacts: ObjectArtifacts, file: FileEntry, raw: bytes) -> None:
    obstore.put(artifacts._store(), key_of(file), raw)


@pytest.mark.parametrize("size", [0, 100, PART_BYTES + 1, 3 * PART_BYTES])
def test_what_is_put_comes_back(artifacts: ObjectArtifacts, size: int, tmp_path: Path) -> None:
    raw = content(size)
    path, file = a_file(tmp_path, raw)
    artifacts.put(path, file)
    artifacts.fetch(file, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == raw
    assert artifacts.has(file)
    assert b"".join(artifacts.read(file, 5, 14)) == raw[5:14]


def test_a_file_that_is_not_what_it_says_is_not_published(
    artifacts: ObjectArtifacts, tmp_path: Path
) -> None:
    path, _ = a_file(tmp_path, b"one")
    other = entry_of(b"two")
    with pytest.raises(ArtifactCorrupt):
        artifacts.put(path, other)
    assert not artifacts.has(other)


def test_damage_in_the_bucket_is_found(artifacts: ObjectArtifacts, tmp_path: Path) -> None:
    path, file = a_file(tmp_path, content(10))
    artifacts.put(path, file)
    overwrite(artifacts, file, bytes(file.size_bytes))
    with pytest.raises(ArtifactCorrupt):
        artifacts.fetch(file, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    overwrite(artifacts, file, b"short")
    assert not artifacts.has(file)
    with pytest.raises(ArtifactCorrupt):
        artifacts.read(file, 0, 1)


def test_what_is_missing_is_said_to_be(artifacts: ObjectArtifacts, tmp_path: Path) -> None:
    nowhere = entry_of(uuid.uuid4().bytes)
    assert not artifacts.has(nowhere)
    with pytest.raises(ArtifactCorrupt):
        artifacts.fetch(nowhere, tmp_path / "back")


def test_files_are_listed_by_age_and_taken_away(artifacts: ObjectArtifacts, tmp_path: Path) -> None:
    path, file = a_file(tmp_path, content(10))
    artifacts.put(path, file)
    old = {found.sha256 for found in artifacts.stored(older_than=timedelta(days=1))}
    assert file.sha256 not in old
    soon = artifacts.stored(older_than=timedelta(seconds=-60))
    (listed,) = [found for found in soon if found.sha256 == file.sha256]
    assert listed.size_bytes == file.size_bytes
    assert artifacts.remove(listed)
    assert not artifacts.has(file)
    assert artifacts.remove(listed)  # another process was faster


def test_a_bucket_that_does_not_answer_is_unavailable(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {**s3.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    nowhere = ObjectArtifacts(s3.url(PREFIX))
    path, file = a_file(tmp_path, b"abc")
    for act in (nowhere.check, lambda: nowhere.put(path, file), lambda: nowhere.has(file)):
        with pytest.raises(Unavailable, match="storage"):
            act()
