"""Content-addressed files, in a real folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.domain.adapter import FileEntry
from app.domain.errors import ArtifactCorrupt, Unavailable
from app.storage.artifacts import LEFT_AFTER_S, PART_BYTES, PIECE_BYTES, ObjectArtifacts, key_of
from tests.samples import a_file, entry_of

ROOT = Path(__file__).parents[2]
SIZES = [0, 1, PIECE_BYTES, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES - 7]

USE_AFTER_FORK = """
import os, sys
from pathlib import Path
from app.storage.artifacts import ObjectArtifacts
from app.domain.adapter import FileEntry
artifacts = ObjectArtifacts(sys.argv[1])
assert "obstore" not in sys.modules, "obstore was imported before the fork"
if os.fork() == 0:
    artifacts.fetch(FileEntry(sys.argv[2], int(sys.argv[3])), Path(sys.argv[4]))
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""

PUT_AND_FETCH_MANY_MEGABYTES = """
import hashlib, resource, sys
from pathlib import Path
from app.domain.adapter import FileEntry
from app.storage.artifacts import ObjectArtifacts
folder, size = Path(sys.argv[1]), 128 << 20
source = folder / "source"
with source.open("wb") as target:
    target.truncate(size)
digest = hashlib.sha256()
for _ in range(128):
    digest.update(bytes(1 << 20))
file, artifacts = FileEntry(digest.hexdigest(), size), ObjectArtifacts(folder / "store")
artifacts.check()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
artifacts.put(source, file)
artifacts.fetch(file, folder / "fetched")
assert sum(map(len, artifacts.read(file, 0, size))) == size
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


KILLED_IN_A_PUT = """
import os, signal, sys
from pathlib import Path
from app.domain.adapter import FileEntry
from app.storage import artifacts
def pieces(source):
    yield bytes(artifacts.PART_BYTES + 1)
    yield bytes(artifacts.PART_BYTES)
    os.kill(os.getpid(), signal.SIGKILL)
artifacts._pieces_of = pieces
file = FileEntry("ab" * 32, 3 * artifacts.PART_BYTES)
artifacts.ObjectArtifacts(sys.argv[1]).put(Path(os.devnull), file)
"""


@pytest.fixture
def artifacts(tmp_path: Path) -> ObjectArtifacts:
    return ObjectArtifacts(tmp_path / "store")


def content_of(size: int) -> bytes:
    return bytes(i * 31 % 251 for i in range(1009)) * (size // 1009 + 1)


def stored_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def stored(tmp_path: Path, file: FileEntry) -> Path:
    return tmp_path / "store" / key_of(file)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_put_is_fetched_and_read(
    artifacts: ObjectArtifacts, tmp_path: Path, size: int
) -> None:
    content = content_of(size)[:size]
    path, file = a_file(tmp_path, content)
    artifacts.put(path, file)
    artifacts.fetch(file, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content
    assert b"".join(artifacts.read(file, 0, size)) == content
    assert stored_files(tmp_path) == [stored(tmp_path, file)]


def test_a_file_lies_under_its_digest(artifacts: ObjectArtifacts, tmp_path: Path) -> None:
    artifacts.put(*a_file(tmp_path, b"abc"))
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert stored_files(tmp_path) == [tmp_path / "store" / "sha256" / "ba" / digest]


@pytest.mark.parametrize("location", [str, Path, Path.as_uri])
def test_a_folder_may_be_given_as_a_path_or_as_a_url(
    tmp_path: Path, location: Callable[[Path], str | Path]
) -> None:
    folder = tmp_path / "a folder, not there yet"
    ObjectArtifacts(location(folder)).put(*a_file(tmp_path, b"abc"))
    assert (folder / key_of(entry_of(b"abc"))).read_bytes() == b"abc"


def test_putting_twice_changes_nothing(artifacts: ObjectArtifacts, tmp_path: Path) -> None:
    path, file = a_file(tmp_path, b"abc")
    artifacts.put(path, file)
    artifacts.put(path, file)
    assert stored_files(tmp_path) == [stored(tmp_path, file)]


def test_putting_again_repairs_a_damaged_file(artifacts: ObjectArtifacts, tmp_path: Path) -> None:
    path, file = a_file(tmp_path, b"abc")
    artifacts.put(path, file)
    stored(tmp_path, file).write_bytes(b"abd")
    artifacts.put(path, file)
    artifacts.fetch(file, tmp_path / "fetched")


def test_the_same_content_may_be_put_at_once(artifacts: ObjectArtifacts, tmp_path: Path) -> None:
    content = content_of(2 * PART_BYTES)
    sources = [a_file(tmp_path, content) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda source: artifacts.put(*source), sources))
    file = sources[0][1]
    assert stored_files(tmp_path) == [stored(tmp_path, file)]
    artifacts.fetch(file, tmp_path / "fetched")


@pytest.mark.parametrize("size", [100, 3 * PART_BYTES])
def test_a_source_that_is_not_what_it_was_said_to_be_is_not_published(
    artifacts: ObjectArtifacts, tmp_path: Path, size: int
) -> None:
    content = content_of(size)[:size]
    path, file = a_file(tmp_path, content)
    for other in (content[:-1], content + b"x", b"x" + content[1:]):
        path.write_bytes(other)
        with pytest.raises(ArtifactCorrupt):
            artifacts.put(path, file)
        assert stored_files(tmp_path) == []


def test_a_put_that_is_interrupted_leaves_no_file(
    artifacts: ObjectArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = a_file(tmp_path, content_of(4 * PART_BYTES))

    def interrupted(_source: object) -> object:
        yield bytes(2 * PART_BYTES)
        raise KeyboardInterrupt

    monkeypatch.setattr("app.storage.artifacts._pieces_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        artifacts.put(path, file)
    assert stored_files(tmp_path) == []


# ------------------------------------------------------------------------------------- damage
@pytest.mark.parametrize("damage", ["bit flipped", "cut", "emptied", "longer", "gone"])
def test_a_damaged_file_is_not_fetched(
    artifacts: ObjectArtifacts, tmp_path: Path, damage: str
) -> None:
    content = content_of(2 * PIECE_BYTES)
    path, file = a_file(tmp_path, content)
    artifacts.put(path, file)
    spoil(stored(tmp_path, file), damage)
    with pytest.raises(ArtifactCorrupt):
        artifacts.fetch(file, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("damage", ["cut", "emptied", "longer", "gone"])
def test_a_file_of_another_size_is_found_before_the_first_byte_is_read(
    artifacts: ObjectArtifacts, tmp_path: Path, damage: str
) -> None:
    path, file = a_file(tmp_path, b"abcdef")
    artifacts.put(path, file)
    spoil(stored(tmp_path, file), damage)
    with pytest.raises(ArtifactCorrupt):
        artifacts.read(file, 5, 6)


def spoil(path: Path, damage: str) -> None:
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "bit flipped":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        path.write_bytes({"cut": content[:-1], "emptied": b"", "longer": content + b"x"}[damage])


# ------------------------------------------------------------------------------------- ranges
@pytest.mark.parametrize(
    ("begin", "end"),
    [(0, 0), (5, 5), (0, 1), (3, 2 * PIECE_BYTES + 5), (PIECE_BYTES, PIECE_BYTES + 1)],
)
def test_a_range_is_read_in_bounded_pieces(
    artifacts: ObjectArtifacts, tmp_path: Path, begin: int, end: int
) -> None:
    content = content_of(3 * PIECE_BYTES)
    path, file = a_file(tmp_path, content)
    artifacts.put(path, file)
    pieces = list(artifacts.read(file, begin, end))
    assert b"".join(pieces) == content[begin:end]
    assert max(map(len, pieces), default=0) <= PIECE_BYTES


@pytest.mark.parametrize(("begin", "end"), [(-1, 2), (2, 1), (0, 4)])
def test_a_range_outside_the_file_is_a_mistake(
    artifacts: ObjectArtifacts, tmp_path: Path, begin: int, end: int
) -> None:
    path, file = a_file(tmp_path, b"abc")
    artifacts.put(path, file)
    with pytest.raises(ValueError, match="range"):
        artifacts.read(file, begin, end)


# ------------------------------------------------------------------------------- availability
def test_a_folder_that_can_be_written_passes_the_check(artifacts: ObjectArtifacts) -> None:
    artifacts.check()
    artifacts.check()


@pytest.mark.parametrize("location", ["/proc/no-such/store", "/dev/null/store"])
def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path, location: str) -> None:
    artifacts = ObjectArtifacts(location)
    path, file = a_file(tmp_path, b"abc")
    with pytest.raises(Unavailable, match="storage"):
        artifacts.check()
    with pytest.raises(Unavailable, match="storage"):
        artifacts.put(path, file)


def test_a_bucket_that_does_not_answer_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    artifacts = ObjectArtifacts("s3://bucket/prefix")
    with pytest.raises(Unavailable, match="storage") as caught:
        artifacts.check()
    assert "BadScheme" not in str(caught.value.__cause__), "AWS_ALLOW_HTTP was not heeded"
    with pytest.raises(Unavailable, match="storage"):
        artifacts.fetch(entry_of(b"abc"), tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_artifacts_made_before_a_fork_work_in_the_child(
    artifacts: ObjectArtifacts, tmp_path: Path
) -> None:
    path, file = a_file(tmp_path, b"abc")
    artifacts.put(path, file)
    arguments = [str(tmp_path / "store"), file.sha256, str(file.size_bytes), str(tmp_path / "out")]
    command = [sys.executable, "-c", USE_AFTER_FORK, *arguments]
    subprocess.run(command, check=True, cwd=ROOT, timeout=30)
    assert (tmp_path / "out").read_bytes() == b"abc"


def test_large_files_pass_through_in_little_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUT_AND_FETCH_MANY_MEGABYTES, str(tmp_path)]
    grown_mib = int(subprocess.check_output(command, cwd=ROOT, timeout=60))
    assert grown_mib < 40  # because 128 MiB went through three times; under 10 was seen


def test_what_a_put_left_whose_process_was_killed_is_gone_a_day_after(tmp_path: Path) -> None:
    artifacts = ObjectArtifacts(tmp_path)
    path, kept = a_file(tmp_path, b"kept")
    artifacts.put(path, kept)
    subprocess.run([sys.executable, "-c", KILLED_IN_A_PUT, str(tmp_path)], cwd=ROOT, check=False)
    (left,) = (tmp_path / "sha256").rglob("*#*")
    artifacts.sweep()
    assert left.exists()  # it may be somebody's who is still writing
    for path in (left, tmp_path / key_of(kept)):
        os.utime(path, (0, left.stat().st_mtime - LEFT_AFTER_S - 1))
    artifacts.sweep()
    assert not left.exists()
    assert (tmp_path / key_of(kept)).exists()
