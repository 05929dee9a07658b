"""What the caches hold of each pair, on SQLite and PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.domain.alignment import PairUsage
from app.domain.errors import InvalidField
from app.storage.records import SqlRecords

USAGE = PairUsage("cache", "b" * 64, "c" * 64, "org/base", "org/chat", 7, 1 << 40, 2, 5)


def noted(records: SqlRecords) -> list[PairUsage]:
    return [pair.usage for pair in records.alignments(limit=50, cursor=None).items]


def test_a_pair_is_listed_as_it_was_noted(records: SqlRecords) -> None:
    records.note_alignments([USAGE])
    (pair,) = records.alignments(limit=50, cursor=None).items
    assert pair.usage == USAGE
    assert abs((pair.last_used - datetime.now(UTC)).total_seconds()) < 60


def test_hits_and_misses_add_up_and_the_rest_is_what_it_is_now(records: SqlRecords) -> None:
    renamed = replace(USAGE, base_model="other", modules=9, size_bytes=3, hits=10, misses=0)
    records.note_alignments([USAGE])
    records.note_alignments([renamed])
    assert noted(records) == [replace(renamed, hits=12, misses=5)]


def test_a_pair_that_a_job_did_not_use_keeps_its_names_and_time(records: SqlRecords) -> None:
    records.note_alignments([USAGE])
    (before,) = records.alignments(limit=50, cursor=None).items
    evicted = replace(USAGE, base_model="x", modules=0, size_bytes=0, hits=0, misses=0)
    records.note_alignments([evicted])
    (after,) = records.alignments(limit=50, cursor=None).items
    assert after.last_used == before.last_used
    assert after.usage == replace(USAGE, modules=0, size_bytes=0)


@pytest.mark.parametrize("field", ["cache_id", "base_digest", "chat_digest"])
def test_other_caches_and_models_have_rows_of_their_own(records: SqlRecords, field: str) -> None:
    other = replace(USAGE, **{field: "other"})
    records.note_alignments([USAGE, other])
    assert noted(records) == [other, USAGE]


def test_workers_that_note_at_once_lose_nothing(records: SqlRecords) -> None:
    start = threading.Barrier(8)

    def note(_: int) -> None:
        start.wait()
        records.note_alignments([replace(USAGE, hits=1, misses=0)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(note, range(8)))
    assert [usage.hits for usage in noted(records)] == [8]


def test_workers_that_list_the_same_pairs_in_another_order_lose_nothing(
    records: SqlRecords,
) -> None:
    """Each would hold the row that the other waits for."""
    usages = [replace(USAGE, base_digest=str(i), hits=1) for i in range(10)]
    start = threading.Barrier(2)

    def note(order: list[PairUsage]) -> None:
        start.wait()
        for _ in range(20):
            records.note_alignments(order)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(note, [usages, usages[::-1]]))
    assert [usage.hits for usage in noted(records)] == [40] * 10


def test_the_listing_is_paged(records: SqlRecords) -> None:
    usages = [replace(USAGE, cache_id=str(i)) for i in range(5)]
    records.note_alignments(usages)
    seen, cursor = [], None
    while True:
        page = records.alignments(limit=2, cursor=cursor)
        seen += [pair.usage for pair in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == usages[::-1]


def test_a_cursor_of_another_listing_is_refused(records: SqlRecords) -> None:
    with pytest.raises(InvalidField):
        records.alignments(limit=2, cursor="am9iczox")
