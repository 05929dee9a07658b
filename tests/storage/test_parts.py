"""Safety modules and kits on SQLite and PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from app.domain.salora import PartModule
from app.domain.salora_errors import PartNotFound
from app.storage.records import SqlRecords
from tests.samples import a_part, entry_of


@pytest.mark.parametrize("kind", ["safety_module", "kit"])
def test_a_part_comes_back_as_it_was_kept(records: SqlRecords, kind: str) -> None:
    part = a_part(kind, made_of={"rank": 3, "targets": ["q_proj"], "task": None})
    assert records.add_part(part) == part
    assert records.part(kind, part.id) == records.find_part(kind, part.id) == part


def test_of_two_parts_with_one_id_the_first_is_kept(records: SqlRecords) -> None:
    part = a_part()
    records.add_part(part)
    assert records.add_part(replace(part, file=entry_of(b"rounded otherwise"))) == part
    assert records.part("safety_module", part.id) == part


def test_of_workers_that_keep_one_part_at_once_all_get_the_same(records: SqlRecords) -> None:
    part = a_part()
    made = [replace(part, file=entry_of(b"%d" % number)) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(records.add_part, made))
    assert len({found.file.sha256 for found in kept}) == 1
    assert records.part("safety_module", part.id) == kept[0]


@pytest.mark.parametrize("part_id", ["", "no-such", "\x00", "\ud800", "a" * 5000])
def test_an_unknown_part_is_not_found(records: SqlRecords, part_id: str) -> None:
    assert records.find_part("kit", part_id) is None
    with pytest.raises(PartNotFound, match="no kit"):
        records.part("kit", part_id)
    with pytest.raises(PartNotFound, match="no safety module"):
        records.part("safety_module", part_id)


def test_the_kinds_and_the_tenants_are_apart(records: SqlRecords) -> None:
    part = a_part("kit")
    records.of("a").add_part(part)
    assert records.of("a").find_part("safety_module", part.id) is None
    assert records.of("b").find_part("kit", part.id) is None
    assert records.of("b").parts("kit", limit=10, cursor=None).items == []
    assert records.of("a").parts("safety_module", limit=10, cursor=None).items == []


def test_parts_are_listed_newest_first_without_their_modules(records: SqlRecords) -> None:
    modules = tuple(PartModule(f"layers.{n}.q_proj", 4, 4, 2) for n in range(3))
    kept = [records.add_part(a_part("kit", modules=modules)) for _ in range(3)]
    first = records.parts("kit", limit=2, cursor=None)
    second = records.parts("kit", limit=2, cursor=first.cursor)
    assert [part.id for part in (*first.items, *second.items)] == [part.id for part in kept[::-1]]
    assert second.cursor is None
    listed = second.items[0]
    assert (listed.modules, listed.size_bytes) == (3, kept[0].file.size_bytes)
    assert (listed.chat_model, listed.chat_digest) == (kept[0].chat_model, kept[0].chat_digest)
