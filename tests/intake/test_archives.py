import gzip
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE
from app.domain.errors import Refused, TooLarge, UnsafeArchive
from app.intake.archives import unpack
from app.intake.limits import Limits
from tests.intake.files import GOOD_FILES, tarred, zipped


@pytest.fixture
def packed(tmp_path: Path) -> Callable[..., Path]:
    """Unpacks bytes and returns the folder."""

    def unpack_bytes(raw: bytes, limits: Limits | None = None) -> Path:
        archive, into = tmp_path / "archive", tmp_path / "into"
        archive.write_bytes(raw)
        into.mkdir(exist_ok=True)
        try:
            unpack(archive, into, limits or Limits())
        except Refused:
            assert list(into.iterdir()) == []
            raise
        return into

    return unpack_bytes


def pax_times() -> bytes:
    """A tar as Python's tarfile makes it from real files: fractions of seconds need pax headers."""
    infos = [tarfile.TarInfo(name) for name in GOOD_FILES]
    for info in infos:
        info.mtime = 1.5
    return tarred(zip(infos, GOOD_FILES.values(), strict=True))


@pytest.mark.parametrize(
    "raw",
    [
        zipped(GOOD_FILES),
        zipped(GOOD_FILES, zipfile.ZIP_STORED),
        zipped([("./", b""), *(("./" + name, content) for name, content in GOOD_FILES.items())]),
        tarred(GOOD_FILES),
        tarred(GOOD_FILES, "w:gz"),
        tarred(GOOD_FILES, tar_format=tarfile.GNU_FORMAT),
        tarred(GOOD_FILES, tar_format=tarfile.USTAR_FORMAT),
        pax_times(),
        gzip.compress(pax_times()),
        tarred({"./" + name: content for name, content in GOOD_FILES.items()}),
    ],
)
def test_every_honest_archive_gives_its_files_back(raw: bytes, packed: Callable[..., Path]) -> None:
    into = packed(raw)
    assert {path.name: path.read_bytes() for path in into.iterdir()} == GOOD_FILES


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_of_a_folder_made_by_tarfile_is_taken(
    mode: str, packed: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, content in GOOD_FILES.items():
        (folder / name).write_bytes(content)
    with tarfile.open(tmp_path / "out.tar", mode) as archive:
        archive.add(folder, arcname=".")
    into = packed((tmp_path / "out.tar").read_bytes())
    assert {path.name for path in into.iterdir()} == set(GOOD_FILES)


def test_a_file_is_counted_as_it_comes_out_not_as_it_is_declared(
    packed: Callable[..., Path],
) -> None:
    files = {**GOOD_FILES, README_FILE: b"x" * 2000}
    limits = Limits(readme_bytes=1000)
    for raw in (zipped(files), tarred(files), tarred(files, "w:gz")):
        with pytest.raises(TooLarge, match=README_FILE):
            packed(raw, limits)


def test_the_ratio_counts_only_above_its_floor(packed: Callable[..., Path]) -> None:
    zeros = {CONFIG_FILE: b"{}", WEIGHTS_FILE: bytes(1 << 20)}
    into = packed(zipped(zeros))  # 1000:1, but small
    assert (into / WEIGHTS_FILE).stat().st_size == 1 << 20


def test_a_bomb_above_the_floor_is_refused_by_its_ratio(packed: Callable[..., Path]) -> None:
    zeros = {CONFIG_FILE: b"{}", WEIGHTS_FILE: bytes(1 << 20)}
    limits = Limits(archive_ratio_floor_bytes=1 << 16)
    for raw in (zipped(zeros), tarred(zeros, "w:gz")):
        with pytest.raises(UnsafeArchive, match="200 times"):
            packed(raw, limits)


def test_what_was_there_before_is_left_alone(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(zipped(GOOD_FILES))
    into = tmp_path / "into"
    into.mkdir()
    (into / WEIGHTS_FILE).write_bytes(b"older")
    with pytest.raises(FileExistsError):
        unpack(archive, into)
    assert [path.read_bytes() for path in into.iterdir()] == [b"older"]


HONEST = [zipped(GOOD_FILES), tarred(GOOD_FILES), tarred(GOOD_FILES, "w:gz"), pax_times()]


def check_no_other_error(raw: bytes, scratch: Path) -> None:
    (scratch / "archive").write_bytes(raw)
    into = scratch / "into"
    into.mkdir(exist_ok=True)
    try:
        unpack(scratch / "archive", into)
    except Refused:
        assert list(into.iterdir()) == []
    for path in into.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archives")


@settings(deadline=None, max_examples=300)  # because the machine is shared
@given(
    which=st.integers(0, len(HONEST) - 1),
    edits=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
    keep=st.none() | st.integers(0, 1 << 14),
    from_end=st.booleans(),
)
def test_damaged_archives_raise_nothing_but_a_refusal(
    which: int,
    edits: list[tuple[int, int]],
    keep: int | None,
    from_end: bool,
    scratch: Path,
) -> None:
    raw = bytearray(HONEST[which])
    for at, value in edits:
        at = at % len(raw)
        raw[-at if from_end else at] = value
    check_no_other_error(bytes(raw[:keep]), scratch)


@settings(deadline=None)  # because the machine is shared
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"\x1f\x8b\x08\x00"]),
    rest=st.binary(max_size=600),
)
def test_random_bytes_raise_nothing_but_a_refusal(start: bytes, rest: bytes, scratch: Path) -> None:
    check_no_other_error(start + rest, scratch)
