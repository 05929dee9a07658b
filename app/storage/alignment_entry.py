"""One entry of the alignment cache: a safetensors file that knows what its bytes should be.

The file's metadata carry a digest of every chunk of every tensor, and one over themselves. Chunks
are checked when they are read, each time; the rest when the file is opened.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from app.domain.adapter import TensorEntry
from app.domain.errors import Refused
from app.intake.limits import CHECKPOINT_LIMITS
from app.intake.safetensors_header import read_header

METADATA_KEY = "adapter-safety"
DIGEST_CHARS = 16
LENGTH_BYTES = 8
ALIGNED_BYTES = 64  # where the first tensor begins: a line of every processor's caches
RESERVED_BYTES = 4096  # of the header, for all metadata but the digests
MAX_CALL_BYTES = 1 << 30  # because macOS writes no more than 2^31 - 1 bytes in one call


class DamagedEntry(Exception):
    """An entry's bytes are not those that were written. It is dropped and computed again."""


@dataclass(frozen=True)
class NewTensor:
    dtype: str  # safetensors name
    shape: tuple[int, ...]
    size_bytes: int
    chunk_bytes: int  # what is read, and so checked, at once

    @property
    def chunks(self) -> int:
        return -(-self.size_bytes // self.chunk_bytes) if self.size_bytes else 0


@dataclass
class Entry:
    """An entry to read. Close it when its tensors have been read or mapped."""

    path: Path
    descriptor: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    _digests: Mapping[str, list[str]]
    _seed: int

    def check(self, tensor: str, chunk: int, data: memoryview) -> None:
        """Raises DamagedEntry where `data` is not what was written as that chunk."""
        if _digest(data, self._seed) != self._digests[tensor][chunk]:
            raise DamagedEntry(f"{self.path.name}: {tensor}, chunk {chunk}")

    def touch(self) -> None:
        """Note that the entry was of use."""
        os.utime(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


class NewEntry:
    """An entry being written. Give every tensor, then `finish`; `close` discards what was not."""

    def __init__(self, tensors: Mapping[str, NewTensor], seed: int) -> None:
        self._tensors, self._seed = tensors, seed
        self._digests: dict[str, list[str]] = {}
        chars = sum(t.chunks * (DIGEST_CHARS + 8) for t in tensors.values())
        whole = (LENGTH_BYTES + RESERVED_BYTES + chars) // ALIGNED_BYTES * ALIGNED_BYTES
        self._header_bytes = whole - LENGTH_BYTES
        self._descriptor: int | None = None

    @property
    def size_bytes(self) -> int:
        data = sum(tensor.size_bytes for tensor in self._tensors.values())
        return LENGTH_BYTES + self._header_bytes + data

    def open(self, path: Path) -> None:
        """Create the file at its whole size: writing then takes a quarter of the time."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._reserve()
        except OSError:
            self.close()
            raise

    def write(self, tensor: str, data: memoryview) -> None:
        """A whole tensor's bytes. Raises OSError."""
        said, at = self._tensors[tensor], self._begin(tensor)
        digests = self._digests[tensor] = []
        for offset in range(0, said.size_bytes, said.chunk_bytes):
            chunk = data[offset : offset + said.chunk_bytes]
            digests.append(_digest(chunk, self._seed))
            _write(self._open(), chunk, at + offset)

    def finish(self, path: Path, metadata: Mapping[str, object]) -> None:
        """Write the header and give the file its name. Raises OSError."""
        header = self._header(metadata)
        _write(self._open(), memoryview(len(header).to_bytes(8, "little") + header), 0)
        self._path.replace(path)
        os.close(self._open())
        self._descriptor = None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._path.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._descriptor is None:
            raise ValueError("the entry is not open")
        return self._descriptor

    def _reserve(self) -> None:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(self._open(), 0, self.size_bytes)

    def _begin(self, tensor: str) -> int:
        """Where a tensor's bytes begin in the file."""
        at = LENGTH_BYTES + self._header_bytes
        for name, said in self._tensors.items():
            if name == tensor:
                return at
            at += said.size_bytes
        raise KeyError(tensor)

    def _header(self, metadata: Mapping[str, object]) -> bytes:
        table: dict[str, object] = {}
        first = LENGTH_BYTES + self._header_bytes
        for name, said in self._tensors.items():
            begin = self._begin(name) - first
            offsets = [begin, begin + said.size_bytes]
            table[name] = {"dtype": said.dtype, "shape": said.shape, "data_offsets": offsets}
        text = json.dumps({"digests": self._digests, **metadata}, sort_keys=True)
        own = _digest(memoryview(text.encode()), self._seed)
        table["__metadata__"] = {METADATA_KEY: text, "digest": own}
        raw = json.dumps(table, separators=(",", ":")).encode()
        if len(raw) > self._header_bytes:
            raise ValueError(f"{len(raw)} bytes of header, {self._header_bytes} are reserved")
        return raw.ljust(self._header_bytes)  # safetensors takes spaces after the JSON


def open_entry(path: Path, seed: int) -> Entry | None:
    """The entry at `path`; None where it is damaged. Raises FileNotFoundError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        entry = _read(path.resolve(), descriptor, seed)
    except (Refused, ValueError, KeyError, TypeError):
        entry = None
    if entry is None:
        os.close(descriptor)
    return entry


def _read(path: Path, descriptor: int, seed: int) -> Entry | None:
    with open(descriptor, "rb", closefd=False) as file:
        size = os.fstat(descriptor).st_size
        header = read_header(file, size, file_name=path.name, limits=CHECKPOINT_LIMITS)
    text = header.metadata[METADATA_KEY]
    if _digest(memoryview(text.encode()), seed) != header.metadata["digest"]:
        return None
    metadata = json.loads(text)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    return Entry(path, descriptor, metadata, tensors, metadata["digests"], seed)


def _digest(data: memoryview, seed: int) -> str:
    return xxhash.xxh3_64_hexdigest(data, seed=seed)


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data[:MAX_CALL_BYTES], offset)
        data, offset = data[count:], offset + count
