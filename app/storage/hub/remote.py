"""A hub's checkpoint that is read by the tensor: headers first, then what is asked for."""

import dataclasses
import hashlib
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.errors import CheckpointRefused, Unavailable
from app.intake.checkpoint import CONFIG, INDEX, SINGLE, read_checkpoint, weights_files
from app.intake.limits import CHECKPOINT_LIMITS
from app.jobs.hub_ports import HubCommit, HubFile
from app.storage.hub.cache import Snapshot
from app.storage.hub.ranges import LOOK_S, Watch
from app.storage.hub.reader import Hub
from app.storage.hub.sparse import Range, SparseFile, length, merged, subtract

GAP_BYTES = 1 << 16  # a gap this small costs less than another request
MOST = 0.8  # of a file: then all of it, because only a whole file's digest can be checked
SMALL_BYTES = 256 << 20  # a tokenizer with its merges has tens of MB
SMALL_LIMITS = {CONFIG: 1 << 20, INDEX: 64 << 20}  # because they are parsed as a whole
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
    _verified: set[str] = dataclasses.field(default_factory=set)  # whole, with right digests

    def read(self) -> Checkpoint:
        """Its names, shapes and places; no weights yet.

        Raises CheckpointRefused, HubFileCorrupt, what `explained` raises, HubCacheFull.
        """
        names = self.snapshot.files.keys()
        self._have_small([name for name in (CONFIG, *self._index) if name in names])
        folder, asked = self.snapshot.folder, {"field": self.field, "model": self.model}
        self.weights = weights_files(folder, names, **asked)
        self._have_headers()
        found = read_checkpoint(folder, **asked, is_partial=True)
        commit, files = self.snapshot.commit, self.snapshot.files
        weights = {name: digest_of(commit, files[name]) for name in self.weights}
        digest = hub_digest(found.digest, weights)
        return replace(found, digest=digest, revision=commit.sha, remote=self)

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
        self.snapshot.check()
        left = {name: ranges for name, ranges in wanted.items() if not self._has(name, ranges)}
        if not left:
            return
        missing = {name: length(self._missing(name, ranges)) for name, ranges in left.items()}
        done, total = 0, sum(missing.values())
        self.snapshot.make_room(total)
        for name, ranges in left.items():
            self._fetch_file(name, ranges, done, total)
            done += missing[name]

    def _has(self, name: str, ranges: list[Range]) -> bool:
        """Whether it was seen here; of a whole file, that it was checked."""
        if ranges == self._whole(name):
            return name in self._verified
        return not subtract(ranges, self._held.get(name, []))

    def _missing(self, name: str, ranges: list[Range]) -> list[Range]:
        with self.snapshot.file(name, lambda: self._tell(0, 0)) as local:
            return local.missing(ranges)

    def _fetch_file(self, name: str, ranges: list[Range], done: int, total: int) -> None:
        """Nothing may be missing, and the digest of a whole file yet to be checked."""

        def watch(came: int) -> None:
            self._tell(done + came, total)

        with self.snapshot.file(name, lambda: watch(0)) as local:
            self._get(name, local, ranges, watch)
            self._note(name, local, ranges)

    def _get(self, name: str, local: SparseFile, ranges: list[Range], watch: Watch) -> None:
        snapshot = self.snapshot
        file = snapshot.files[name]
        self.hub.fetch(snapshot.commit, file, local, ranges, watch, snapshot.make_room)

    def _note(self, name: str, local: SparseFile, ranges: list[Range]) -> None:
        self._held[name] = merged([*self._held.get(name, []), *ranges])
        if local.is_verified:
            self._verified.add(name)

    def _tell(self, done: int, total: int) -> None:
        self.on_download(Download(self.model, done, total))

    def _have_small(self, names: Iterable[str]) -> None:
        """Raises CheckpointRefused for a file that is larger than any such is."""
        for name in names:
            if self.snapshot.files[name].size_bytes > SMALL_LIMITS.get(name, SMALL_BYTES):
                raise self._refused(name, "it is too large to be what its name says")
        self._fetch({name: self._whole(name) for name in sorted(names)})

    def _have_headers(self) -> None:
        """Of several files at once. What ends one ends all."""
        ended = threading.Event()

        def waiting(_: int = 0) -> None:
            if ended.is_set():
                raise Unavailable(part="hub")

        with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
            tasks = {pool.submit(self._have_header, name, waiting) for name in self.weights}
            try:
                while tasks:
                    done, tasks = wait(tasks, LOOK_S, FIRST_EXCEPTION)
                    for task in done:
                        task.result()
                    self._tell(0, 0)
            finally:
                ended.set()

    def _have_header(self, name: str, waiting: Watch) -> None:
        """First how long it is, then no more than that. Raises CheckpointRefused for one that is
        too long."""
        file, begin = self.snapshot.files[name], HEADER_LENGTH_BYTES
        if file.size_bytes < begin:
            raise self._refused(name, "it is no safetensors file")
        with self.snapshot.file(name, lambda: waiting(0)) as local:
            self._get(name, local, [(0, begin)], waiting)
            (count,) = struct.unpack("<Q", local.read(0, begin))
            if count > min(CHECKPOINT_LIMITS.header_bytes, file.size_bytes - begin):
                raise self._refused(name, f"it says that its header has {count} bytes")
            self._get(name, local, [(begin, begin + count)], waiting)

    def _refused(self, file: str, reason: str) -> CheckpointRefused:
        return CheckpointRefused(field=self.field, model=self.model, file=file, reason=reason)


def hub_digest(headers: str, weights: Mapping[str, str]) -> str:
    """Over the headers and the hub's own digest of each whole file, by its name: the same content
    has the same digest in every repository, whichever way it came here."""
    digest = hashlib.sha256(headers.encode())
    for name in sorted(weights):
        digest.update(f"\0{name}\0{weights[name]}".encode())
    return digest.hexdigest()


def digest_of(commit: HubCommit, file: HubFile) -> str:
    """What tells a file's content; where the hub says nothing, at least which commit's it is."""
    return file.sha256 or file.blob_id or f"{commit.repo_id}@{commit.sha}"


def is_small(file: HubFile) -> bool:
    """A tokenizer's or a configuration's file, never code."""
    path = PurePosixPath(file.name)
    is_placed = path.parts in ((path.name,), (TEMPLATES, path.name))
    is_index = file.name.endswith(".index.json")
    is_small = file.size_bytes <= SMALL_BYTES and path.suffix in SMALL_SUFFIXES
    return is_placed and is_small and not is_index
