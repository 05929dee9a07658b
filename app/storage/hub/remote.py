"""A hub's checkpoint that is read by the tensor: headers first, then what is asked for."""

import dataclasses
import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.errors import CheckpointRefused
from app.intake.checkpoint import CONFIG, INDEX, SINGLE, read_checkpoint, weights_files
from app.intake.limits import CHECKPOINT_LIMITS
from app.jobs.hub_ports import HubFile
from app.storage.hub.cache import Snapshot
from app.storage.hub.reader import Hub, unwatched
from app.storage.hub.sparse import Range, SparseFile, length, merged, subtract

GAP_BYTES = 1 << 16  # a gap this small costs less than another request
MOST = 0.8  # of a file: then all of it, because only a whole file's digest can be checked
SMALL_BYTES = 256 << 20  # a tokenizer with its merges has tens of MB
SMALL_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken"})
TEMPLATES = "additional_chat_templates"
HEADER_LENGTH_BYTES = 8
HEADERS_AT_ONCE = 8


@dataclass(frozen=True)
class Download:
    """How far the bytes of a model have come."""

    model: str
    done_bytes: int
    total_bytes: int


OnDownload = Callable[[Download], None]
"""Called several times a second while bytes come; may raise to end it."""


@dataclass
class RemoteCheckpoint:
    """`Remote` of one commit. For one thread at a time."""

    hub: Hub
    snapshot: Snapshot
    model: str  # as named
    field: str
    on_download: OnDownload
    weights: Sequence[str] = ()
    _held: dict[str, list[Range]] = dataclasses.field(
        default_factory=dict
    )  # what has been seen to be here

    def read(self) -> Checkpoint:
        """Its names, shapes and places; no weights yet.

        Raises CheckpointRefused, HubFileCorrupt, what `explained` raises, HubCacheFull.
        """
        names = self.snapshot.files.keys()
        self._have_small([name for name in (CONFIG, *self._index) if name in names])
        folder, asked = self.snapshot.folder, {"field": self.field, "model": self.model}
        self.weights = weights_files(folder, names, **asked)
        with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
            list(pool.map(self._have_header, self.weights))
        found = read_checkpoint(folder, **asked, is_partial=True)
        return replace(
            found,
            digest=self._digest(found.digest),
            revision=self.snapshot.commit.sha,
            remote=self,
        )

    @property
    def _index(self) -> Sequence[str]:
        """A single file wins over an index, as in transformers: the index is then left alone."""
        return () if SINGLE in self.snapshot.files else (INDEX,)

    def fetch(self, tensors: Iterable[ShardTensor]) -> None:
        """Raises HubFileCorrupt, HubCacheFull, what `explained` and `on_download` raise."""
        wanted: dict[str, list[Range]] = {}
        for tensor in tensors:
            wanted.setdefault(tensor.file.name, []).append((tensor.entry.begin, tensor.entry.end))
        self._fetch({name: self._planned(name, ranges) for name, ranges in wanted.items()})

    def fetch_tokenizer(self) -> None:
        self._have_small([name for name, file in self.snapshot.files.items() if is_small(file)])

    def fetch_all(self) -> None:
        self.fetch_tokenizer()
        self._fetch({name: self._whole(name) for name in self.weights})

    def _planned(self, name: str, ranges: list[Range]) -> list[Range]:
        """The ranges with small gaps closed, or the whole file where that is most of it."""
        planned = merged(ranges, GAP_BYTES)
        size_bytes = self.snapshot.files[name].size_bytes
        return self._whole(name) if length(planned) > MOST * size_bytes else planned

    def _whole(self, name: str) -> list[Range]:
        return [(0, self.snapshot.files[name].size_bytes)]

    def _fetch(self, wanted: Mapping[str, list[Range]]) -> None:
        missing = {name: self._missing(name, ranges) for name, ranges in wanted.items()}
        total = sum(map(length, missing.values()))
        if not total:
            return
        self.snapshot.make_room(total)
        done = 0
        for name, ranges in missing.items():
            if ranges:
                self._fetch_file(name, wanted[name], done, total)
            done += length(ranges)

    def _missing(self, name: str, ranges: list[Range]) -> list[Range]:
        """By what has been seen, else by the file's journal."""
        if not subtract(ranges, self._held.get(name, [])):
            return []
        with self.snapshot.file(name, lambda: self._tell(0, 0)) as local:
            missing = local.missing(ranges)
        if not missing:
            self._note(name, ranges)
        return missing

    def _fetch_file(self, name: str, ranges: list[Range], done: int, total: int) -> None:
        def watch(came: int) -> None:
            self._tell(done + came, total)

        with self.snapshot.file(name, lambda: watch(0)) as local:
            self._get(name, local, ranges, watch)
        self._note(name, ranges)

    def _get(
        self, name: str, local: SparseFile, ranges: list[Range], watch: Callable[[int], None]
    ) -> None:
        commit, file = self.snapshot.commit, self.snapshot.files[name]
        if ranges == self._whole(name):
            self.hub.fetch_whole(commit, file, local, watch)
        else:
            self.hub.fetch(commit, file, local, ranges, watch)

    def _note(self, name: str, ranges: list[Range]) -> None:
        self._held[name] = merged([*self._held.get(name, []), *ranges])

    def _tell(self, done: int, total: int) -> None:
        self.on_download(Download(self.model, done, total))

    def _have_small(self, names: Iterable[str]) -> None:
        self._fetch({name: self._whole(name) for name in sorted(names)})

    def _have_header(self, name: str) -> None:
        """First how long it is, then no more than that. Raises CheckpointRefused for one that is
        too long."""
        file, begin = self.snapshot.files[name], HEADER_LENGTH_BYTES
        if file.size_bytes < begin:
            raise self._refused(name, "it is no safetensors file")
        with self.snapshot.file(name, lambda: None) as local:
            self.hub.fetch(self.snapshot.commit, file, local, [(0, begin)], unwatched)
            (count,) = struct.unpack("<Q", local.read(0, begin))
            if count > min(CHECKPOINT_LIMITS.header_bytes, file.size_bytes - begin):
                raise self._refused(name, f"it says that its header has {count} bytes")
            self.hub.fetch(self.snapshot.commit, file, local, [(begin, begin + count)], unwatched)

    def _refused(self, file: str, reason: str) -> CheckpointRefused:
        return CheckpointRefused(field=self.field, model=self.model, file=file, reason=reason)

    def _digest(self, headers: str) -> str:
        """Over the headers and what the hub says of each whole file: the same content has the same
        digest in every repository."""
        digest = hashlib.sha256(headers.encode())
        for name in self.weights:
            file = self.snapshot.files[name]
            digest.update(f"\0{name}\0{file.sha256 or file.blob_id}".encode())
        return digest.hexdigest()


def is_small(file: HubFile) -> bool:
    """A tokenizer's or a configuration's file, never code."""
    path = PurePosixPath(file.name)
    is_placed = path.parts in ((path.name,), (TEMPLATES, path.name))
    is_index = file.name.endswith(".index.json")
    is_small = file.size_bytes <= SMALL_BYTES and path.suffix in SMALL_SUFFIXES
    return is_placed and is_small and not is_index
