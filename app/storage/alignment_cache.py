"""Alignments on disk: one safetensors file per pair of models and module, found in a file's time.

    <folder>/v1/seed                         a secret of this cache, see below
    <folder>/v1/<pair>/pair.json             whose alignments these are, for people and listings
    <folder>/v1/<pair>/<content>.safetensors an entry, named by what it was computed from
    <folder>/v1/<pair>/<source>.name         a link to it, named by where that lay

An entry's name is a digest over the very bytes of the two tensors (and the algorithm's version), so
a copied or downloaded model finds it again. Hashing them for every job would cost as much as
computing anew, so a link remembers what the bytes of an unchanged file were, as version control
systems do: same device, inode, size and times.

Files are written under another name and renamed. Nothing is synchronised to the disk: whatever a
power cut leaves is told by the digests, which are checked on every read. The digests are XXH3 with
a random seed of this folder's own, so that nobody who publishes models can prepare a collision.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import xxhash

from app.storage.alignment_entry import Entry, NewEntry, NewTensor, open_entry

VERSION = "v1"  # of the algorithm and the format together; another version is another folder
SUFFIX, LINK_SUFFIX, TEMPORARY = ".safetensors", ".name", ".new-"
ABANDONED_AFTER_S = 3600  # a temporary file this old belongs to a writer that is gone
RECENT_S = 2.0  # because a file may change again within one tick of its file system's clock
COUNTED_FOR_S = 5.0  # because counting walks the whole folder
ROOM = 8  # evict down to 7/8 of the limit, so that not every entry has to


@dataclass(frozen=True)
class Pair:
    """Two models, by their digests (see `Checkpoint.digest`) and by the names they go by here."""

    base_digest: str
    chat_digest: str
    base_model: str
    chat_model: str


@dataclass(frozen=True)
class Inventory:
    """What the cache holds of one pair."""

    pair: Pair
    entries: int
    size_bytes: int


class AlignmentCache:
    """Safe for any number of processes, on one host or on a shared folder."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._root, self._limit = folder / VERSION, limit_bytes
        self._root.mkdir(parents=True, exist_ok=True)
        self._counted_at, self._counted = 0.0, 0

    @cached_property
    def seed(self) -> int:
        """The secret that all processes with this folder share."""
        path = self._root / "seed"
        with suppress(FileExistsError):
            fresh = self._root / f"{TEMPORARY}{secrets.token_hex(8)}"
            fresh.write_text(secrets.token_hex(8))
            try:
                path.hardlink_to(fresh)  # unlike a rename this never replaces another's
            finally:
                fresh.unlink()
        return int(path.read_text(), 16)

    @property
    def id(self) -> str:
        """Names this folder, without telling the seed."""
        return self.digest([b"id"])[:16]

    def digest(self, parts: Sequence[bytes]) -> str:
        """128 bits (hex) over some byte strings and their lengths."""
        hasher = self.hasher()
        for part in parts:
            hasher.update(len(part).to_bytes(8, "little"))
            hasher.update(part)
        return hasher.hexdigest()

    def hasher(self) -> "xxhash.xxh3_128":
        return xxhash.xxh3_128(seed=self.seed)

    def pair(self, pair: Pair) -> "CachedPair":
        name = self.digest([pair.base_digest.encode(), pair.chat_digest.encode()])
        return CachedPair(self, pair, self._root / name)

    def inventory(self) -> list[Inventory]:
        """Every pair that the cache has entries of."""
        found = []
        for folder in (path for path in self._root.iterdir() if path.is_dir()):
            sizes = [size for _, size, _ in _entries(folder)]
            with suppress(OSError, ValueError, TypeError):
                pair = Pair(**json.loads((folder / "pair.json").read_text()))
                found.append(Inventory(pair, len(sizes), sum(sizes)))
        return found

    def make_room(self, size_bytes: int) -> bool:
        """Evict the entries that were used the longest ago until `size_bytes` fit; False where
        they never could."""
        if size_bytes > self._limit:
            return False
        if time.monotonic() - self._counted_at > COUNTED_FOR_S:
            self._count()
        if self._counted + size_bytes > self._limit:
            self._count()
            self._evict(self._counted + size_bytes - self._limit)
        self._counted += size_bytes
        return True

    def _count(self) -> None:
        self._counted = sum(size for _, size, _ in self._everything())
        self._counted_at = time.monotonic()

    def _evict(self, excess: int) -> None:
        if excess <= 0:
            return
        excess += self._limit // ROOM
        for _, size, path in sorted(self._everything()):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
            self._counted -= size
        self._sweep()

    def _everything(self) -> Iterator[tuple[int, int, Path]]:
        for folder in self._root.iterdir():
            if folder.is_dir():
                yield from _entries(folder)

    def _sweep(self) -> None:
        """Remove links whose entry is gone, and what dead writers left."""
        for folder in (path for path in self._root.iterdir() if path.is_dir()):
            for path in folder.iterdir():
                with suppress(OSError):
                    if _is_left_over(path):
                        path.unlink()


@dataclass(frozen=True)
class CachedPair:
    """The entries of one pair of models. An entry that is not what was written is no entry."""

    cache: AlignmentCache
    pair: Pair
    folder: Path

    def has_entries(self) -> bool:
        return self.folder.is_dir() and any(True for _ in _entries(self.folder))

    def find(self, source: str) -> Entry | None:
        """The entry of bytes that lie where they lay, unchanged."""
        return self._open(self.folder / f"{source}{LINK_SUFFIX}")

    def find_content(self, content: str, source: str | None) -> Entry | None:
        """The entry of these very bytes; remembers that `source` has them."""
        entry = self._open(self.folder / f"{content}{SUFFIX}")
        if entry and source:
            self._link(content, source)
        return entry

    def drop(self, entry: Entry) -> None:
        """Forget an entry that turned out damaged."""
        entry.path.unlink(missing_ok=True)

    def create(self, tensors: Mapping[str, NewTensor]) -> NewEntry | None:
        """A file to write an entry into, unseen until `publish`; None where there is no room.

        Raises OSError where the disk refuses.
        """
        new = NewEntry(tensors, self.cache.seed)
        if not self.cache.make_room(new.size_bytes):
            return None
        self._make_folder()
        new.open(self.folder / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}")
        return new

    def publish(
        self, new: NewEntry, content: str, source: str | None, metadata: Mapping[str, object]
    ) -> int:
        """Give a written entry its names; the bytes it takes. Raises OSError."""
        new.finish(self.folder / f"{content}{SUFFIX}", metadata)
        if source:
            self._link(content, source)
        return new.size_bytes

    def _open(self, path: Path) -> Entry | None:
        try:
            entry = open_entry(path, self.cache.seed)
        except FileNotFoundError:
            return None
        if entry is None:  # what is there is damaged
            path.resolve().unlink(missing_ok=True)
        return entry

    def _link(self, content: str, source: str) -> None:
        link = self.folder / f"{source}{LINK_SUFFIX}"
        fresh = self.folder / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):  # the folder was cleared meanwhile
            fresh.symlink_to(f"{content}{SUFFIX}")
            fresh.replace(link)

    def _make_folder(self) -> None:
        if not (self.folder / "pair.json").exists():
            self.folder.mkdir(exist_ok=True)
            fresh = self.folder / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
            fresh.write_text(json.dumps(vars(self.pair)))
            fresh.replace(self.folder / "pair.json")


def is_settled(mtime_ns: int) -> bool:
    """Whether a file that changed at `mtime_ns` would show it if it changed again."""
    return time.time_ns() - mtime_ns > RECENT_S * 1e9


def _is_left_over(path: Path) -> bool:
    if path.suffix == LINK_SUFFIX:
        return not path.exists()
    age_s = time.time() - path.stat().st_mtime
    return path.name.startswith(TEMPORARY) and age_s > ABANDONED_AFTER_S


def _entries(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """(last used in ns, bytes, path) of each entry."""
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        for item in found:
            if item.name.endswith(SUFFIX):
                with suppress(FileNotFoundError):
                    stat = item.stat()
                    yield stat.st_mtime_ns, stat.st_size, Path(item.path)
