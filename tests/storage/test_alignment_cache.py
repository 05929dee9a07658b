import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.storage import alignment_cache
from app.storage.alignment_cache import AlignmentCache, CachedPair, Pair
from app.storage.alignment_entry import DamagedEntry, Entry, NewTensor

PAIR = Pair("base digest", "chat digest", "org/base", "org/chat")
ROOMY = 1 << 30
DATA = bytes(range(256)) * 64  # 16 KiB, in four chunks


def cache(folder: Path, limit_bytes: int = ROOMY) -> AlignmentCache:
    return AlignmentCache(folder, limit_bytes)


def keep(pair: CachedPair, content: str, source: str | None = None, data: bytes = DATA) -> Path:
    new = pair.create({"t": NewTensor("U8", (len(data),), len(data), 4096)})
    assert new is not None
    new.write("t", memoryview(data))
    pair.publish(new, content, source, {"norm": 0.1 + 0.2, "content": content})
    return pair.folder / f"{content}.safetensors"


def read(entry: Entry) -> bytes:
    said = entry.tensors["t"]
    data = os.pread(entry.descriptor, said.size_bytes, said.begin)
    for chunk in range(-(-len(data) // 4096)):
        entry.check("t", chunk, memoryview(data)[chunk * 4096 : (chunk + 1) * 4096])
    entry.close()
    return data


@pytest.fixture
def pair(tmp_path: Path) -> CachedPair:
    return cache(tmp_path).pair(PAIR)


def test_an_entry_is_found_by_where_its_source_lies_and_by_what_that_is(pair: CachedPair) -> None:
    assert pair.find("here") is None
    keep(pair, "abc", "here")
    found = pair.find("here")
    assert found is not None
    assert found.metadata["norm"] == 0.1 + 0.2
    assert read(found) == DATA
    assert pair.find("there") is None
    copied = pair.find_content("abc", "there")
    assert copied is not None
    assert read(copied) == DATA
    again = pair.find("there")  # remembered
    assert again is not None
    assert read(again) == DATA


def test_an_entry_is_a_safetensors_file(pair: CachedPair) -> None:
    loaded = load_file(keep(pair, "abc"))["t"]
    assert torch.equal(loaded, torch.frombuffer(bytearray(DATA), dtype=torch.uint8))


def test_another_pair_has_entries_of_its_own(tmp_path: Path) -> None:
    one = cache(tmp_path)
    keep(one.pair(PAIR), "abc", "here")
    assert one.pair(Pair("base digest", "another", "org/base", "org/chat")).find("here") is None


def test_two_caches_on_one_folder_share_their_seed_and_their_entries(tmp_path: Path) -> None:
    one, other = cache(tmp_path), cache(tmp_path)
    keep(one.pair(PAIR), "abc", "here")
    assert other.id == one.id
    found = other.pair(PAIR).find("here")
    assert found is not None
    assert read(found) == DATA


def test_two_folders_have_different_seeds(tmp_path: Path) -> None:
    one, other = cache(tmp_path / "one"), cache(tmp_path / "other")
    assert one.seed != other.seed
    assert one.digest([b"x"]) != other.digest([b"x"])


@pytest.mark.parametrize("at", [0, 5, 12, 40, 400, 2000], ids="byte {}".format)
def test_an_entry_with_a_flipped_bit_in_its_header_is_none_and_goes(
    pair: CachedPair, at: int
) -> None:
    path = keep(pair, "abc", "here")
    raw = bytearray(path.read_bytes())
    raw[at] ^= 4
    path.write_bytes(raw)
    found = pair.find("here")
    if found is None:
        assert not path.exists()
    else:  # only the padding after the header's JSON may differ without harm
        assert raw[at] ^ 4 == ord(" ")
        assert read(found) == DATA


@pytest.mark.parametrize("chunk", range(4))
def test_a_flipped_bit_in_a_tensor_is_noticed_by_its_chunk(pair: CachedPair, chunk: int) -> None:
    path = keep(pair, "abc", "here")
    raw = bytearray(path.read_bytes())
    raw[len(raw) - len(DATA) + chunk * 4096 + 17] ^= 1
    path.write_bytes(raw)
    found = pair.find("here")
    assert found is not None
    with pytest.raises(DamagedEntry, match=f"t, chunk {chunk}"):
        read(found)
    found.close()


@pytest.mark.parametrize("left", [0, 1, 7, 9, 300, 4200, -1])
def test_a_truncated_entry_is_none_and_goes(pair: CachedPair, left: int) -> None:
    path = keep(pair, "abc", "here")
    os.truncate(path, left if left >= 0 else path.stat().st_size + left)
    assert pair.find("here") is None
    assert not path.exists()
    keep(pair, "abc", "here")
    found = pair.find("here")
    assert found is not None
    assert read(found) == DATA


def test_an_entry_that_was_not_published_leaves_nothing(pair: CachedPair) -> None:
    new = pair.create({"t": NewTensor("U8", (len(DATA),), len(DATA), 4096)})
    assert new is not None
    new.write("t", memoryview(DATA))
    new.close()
    assert [path.name for path in pair.folder.iterdir()] == ["pair.json"]


def test_the_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    size = keep(cache(tmp_path / "measured").pair(PAIR), "x").stat().st_size
    one = cache(tmp_path / "cache", limit_bytes=8 * size).pair(PAIR)
    for i in range(8):
        path = keep(one, f"entry{i}", f"source{i}")
        os.utime(path, ns=(i * 10**9, i * 10**9))
    used = one.find("source0")
    assert used is not None
    used.touch()
    used.close()
    keep(one, "entry8", "source8")  # makes room for itself and an eighth more
    names = {path.stem for path in one.folder.glob("*.safetensors")}
    assert names == {"entry0", *(f"entry{i}" for i in range(3, 9))}
    assert not list(one.folder.glob("source1.name"))  # links go with their entries
    assert one.find("source1") is None


def test_an_entry_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    one = cache(tmp_path, limit_bytes=1000).pair(PAIR)
    assert one.create({"t": NewTensor("U8", (2000,), 2000, 2000)}) is None
    assert not one.has_entries()


def test_an_open_entry_outlives_its_eviction(pair: CachedPair) -> None:
    path = keep(pair, "abc", "here")
    found = pair.find("here")
    assert found is not None
    path.unlink()
    assert read(found) == DATA


def test_what_a_dead_writer_left_is_swept_away(tmp_path: Path) -> None:
    one = cache(tmp_path, limit_bytes=60_000).pair(PAIR)
    keep(one, "first")
    left = one.folder / ".new-1-dead"
    left.write_bytes(b"x")
    hour_ago = time.time() - 7200
    os.utime(left, (hour_ago, hour_ago))
    young = one.folder / ".new-2-alive"
    young.write_bytes(b"x")
    for i in range(4):
        keep(one, f"more{i}")
    assert not left.exists()
    assert young.exists()


def test_the_inventory_tells_pairs_entries_and_bytes(tmp_path: Path) -> None:
    one = cache(tmp_path)
    sizes = [keep(one.pair(PAIR), name).stat().st_size for name in ("a", "b")]
    found = one.inventory()
    assert [(item.pair, item.entries, item.size_bytes) for item in found] == [(PAIR, 2, sum(sizes))]


def test_the_metadata_name_the_pair_for_people(pair: CachedPair) -> None:
    keep(pair, "abc")
    said = json.loads((pair.folder / "pair.json").read_text())
    assert said["base_model"] == "org/base"
    assert said["chat_model"] == "org/chat"


def test_entries_of_another_version_are_neither_read_nor_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an old worker and a new one may share the folder during an upgrade."""
    monkeypatch.setattr(alignment_cache, "VERSION", "v0")
    old = cache(tmp_path)
    kept = keep(old.pair(PAIR), "abc", "here")
    monkeypatch.undo()
    new = cache(tmp_path)
    assert new.pair(PAIR).find("here") is None
    assert new.pair(PAIR).find_content("abc", None) is None
    assert new.inventory() == []
    keep(new.pair(PAIR), "abc", "here", DATA[::-1])
    for found, data in ((old, DATA), (new, DATA[::-1])):
        entry = found.pair(PAIR).find("here")
        assert entry is not None
        assert read(entry) == data
    assert kept.exists()


def test_an_entry_that_was_moved_from_another_versions_folder_is_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digests were made with that folder's seed: it is computed again, never misread."""
    monkeypatch.setattr(alignment_cache, "VERSION", "v0")
    foreign = keep(cache(tmp_path).pair(PAIR), "abc")
    monkeypatch.undo()
    pair = cache(tmp_path).pair(PAIR)
    pair.folder.mkdir(parents=True)
    foreign.rename(pair.folder / foreign.name)
    assert pair.find_content("abc", None) is None
    assert not (pair.folder / foreign.name).exists()
    keep(pair, "abc")
    again = pair.find_content("abc", None)
    assert again is not None
    assert read(again) == DATA
