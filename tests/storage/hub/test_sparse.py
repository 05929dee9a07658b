"""A local copy of some ranges of a file."""

import hashlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.hub.sparse import Range, SparseFile, length, merged, subtract

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted).map(tuple))


def bytes_of(ranges: list[Range]) -> set[int]:
    return {at for begin, end in ranges for at in range(begin, end)}


@given(RANGES, st.integers(0, 5))
def test_merged_ranges_are_in_order_apart_and_cover_the_same_and_small_gaps(
    ranges: list[Range], gap: int
) -> None:
    found = merged(ranges, gap)
    for (_, end), (begin, _) in pairwise(found):
        assert begin > end + gap
    assert all(begin < end for begin, end in found)
    assert bytes_of(found) >= bytes_of(ranges)
    if gap == 0:
        assert bytes_of(found) == bytes_of(ranges)


@given(RANGES, RANGES)
def test_what_is_left_of_ranges_is_what_is_in_none_of_the_others(
    ranges: list[Range], held: list[Range]
) -> None:
    left = subtract(merged(ranges), merged(held))
    assert bytes_of(left) == bytes_of(ranges) - bytes_of(held)
    assert length(left) == len(bytes_of(left))


def test_what_was_noted_is_there_for_the_next_process_and_nothing_else(tmp_path: Path) -> None:
    first = SparseFile(tmp_path / "f", 100)
    first.write(10, b"0123456789")
    first.write(50, b"unnoted")
    first.note(10, 20)
    first.close()
    again = SparseFile(tmp_path / "f", 100)
    assert again.missing([(0, 100)]) == [(0, 10), (20, 100)]
    assert again.missing([(12, 18)]) == []
    assert again.read(10, 20) == b"0123456789"
    again.close()


def test_a_journal_that_was_cut_in_the_middle_of_a_line_says_nothing_of_it(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", 5000)
    file.note(10, 20)
    file.close()
    journal = tmp_path / "f.parts"
    journal.write_text(journal.read_text() + "20 40")  # of "20 4096", say
    again = SparseFile(tmp_path / "f", 5000)
    assert again.missing([(0, 5000)]) == [(0, 10), (20, 5000)]
    again.note(100, 200)  # which must not become a part of the broken line
    again.close()
    last = SparseFile(tmp_path / "f", 5000)
    assert last.missing([(0, 5000)]) == [(0, 10), (20, 100), (200, 5000)]
    last.close()


def test_a_file_of_another_size_holds_nothing(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", 100)
    file.note(0, 100)
    file.note_verified()
    file.close()
    other = SparseFile(tmp_path / "f", 200)
    assert other.missing([(0, 200)]) == [(0, 200)]
    assert not other.is_verified
    other.close()


@pytest.mark.parametrize("size", [0, 1, 9_000_000])
def test_the_digest_is_the_whole_files(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    file = SparseFile(tmp_path / "f", size)
    file.write(0, content[:size])
    assert file.sha256() == hashlib.sha256(content[:size]).hexdigest()
    file.close()


def test_a_file_with_holes_takes_little_of_the_disk(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", 1 << 30)
    file.write(1 << 29, b"x" * 4096)
    file.note(1 << 29, (1 << 29) + 4096)
    file.close()
    assert (tmp_path / "f").stat().st_blocks * 512 < 1 << 20
