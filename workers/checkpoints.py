"""A checkpoint's weights, read lazily by name and by rows.

A weight's bytes are mapped while they are used, and read where they lie. On a kernel with large
pages in its cache that takes the copy out of a pass that is bound by memory (6.5 ms for a pair of
4096 x 4096 weights against 16.7 by `preadv`). A file that someone cuts short meanwhile would end
the process; that a worker dies and its job runs again is provided for.
"""

import mmap
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from app.alignment.difference import Difference
from app.domain.adapter import Part, TensorEntry
from app.domain.alignment import Shaped
from app.domain.architecture import is_stored_transposed
from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.errors import ArtifactCorrupt, NonFiniteTensor
from app.intake.preflight import has_vocabulary_rows

MOST_BYTES = 1 << 30  # in one call, because macOS refuses more than 2^31 - 1
WINDOW_BYTES = 32 << 20  # of a weight, mapped at once

# Read whole and in order, where the system can: faults one by one cost more than the reading.
MAP_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class FileWeight:
    """A `StoredWeight` in an open safetensors file; safe to read from several threads."""

    name: str
    entry: TensorEntry
    descriptor: int
    below: "tuple[FileWeight, ...]" = ()  # whose rows go on where this one's end

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.entry.shape
        return rows + sum(part.shape[0] for part in self.below), columns

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.entry.dtype]

    def first_rows(self, count: int) -> "FileWeight":
        if count == self.shape[0]:
            return self
        row_bytes = self.entry.size_bytes // self.shape[0]
        end = self.entry.begin + count * row_bytes
        return replace(self, entry=replace(self.entry, shape=(count, self.shape[1]), end=end))

    @property
    def pieces(self) -> tuple[tuple[int, int, int], ...]:
        """Where the weight's bytes are: (descriptor, first byte, end)."""
        own = (self.descriptor, self.entry.begin, self.entry.end)
        return (own, *(piece for part in self.below for piece in part.pieces))

    @cached_property
    def _windows(self) -> "Windows":
        return Windows(self.descriptor, self.entry)

    def rows(self, begin: int, end: int) -> Tensor:
        """A view of the file where the rows lie in one piece, else a copy."""
        if end <= self.entry.shape[0]:
            return self._windows.rows(begin, end)
        found = []
        for part in (replace(self, below=()), *self.below):
            rows = part.shape[0]
            if begin < rows and end > 0:
                found.append(part.rows(max(begin, 0), min(end, rows)))
            begin, end = begin - rows, end - rows
        return found[0] if len(found) == 1 else torch.cat(found)


class Windows:
    """A weight's rows where its file has them, some `WINDOW_BYTES` of them mapped at a time: what
    has been read is let go of, else half a gigabyte of a weight would count as the process's."""

    def __init__(self, descriptor: int, entry: TensorEntry) -> None:
        self._descriptor, self._entry = descriptor, entry
        self._row_bytes = entry.size_bytes // max(1, entry.shape[0])
        self._now = (0, 0, torch.empty((0, *entry.shape[1:]), dtype=TORCH_DTYPES[entry.dtype]))

    def rows(self, begin: int, end: int) -> Tensor:
        """A view, which keeps its window mapped. Raises ArtifactCorrupt."""
        first, last, mapped = self._now
        if begin < first or end > last:
            first, last, mapped = self._now = self._window(begin, end)
        return mapped[begin - first : end - first]

    def _window(self, begin: int, end: int) -> tuple[int, int, Tensor]:
        entry, row_bytes = self._entry, self._row_bytes
        whole = begin + WINDOW_BYTES // max(1, row_bytes)
        end = min(entry.shape[0], max(end, whole))
        part = replace(
            entry,
            shape=(end - begin, *entry.shape[1:]),
            begin=entry.begin + begin * row_bytes,
            end=entry.begin + end * row_bytes,
        )
        return begin, end, map_tensor(self._descriptor, part)


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def read_only(buffer: mmap.mmap, dtype: torch.dtype) -> Tensor:
    """A tensor over memory that cannot be written to."""
    with warnings.catch_warnings():
        # because torch warns that writing to it would crash, and nothing here writes to a weight
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(buffer, dtype=dtype)


def read_exactly(descriptor: int, offset: int, out: Tensor) -> None:
    """Fill a contiguous tensor with the bytes at `offset`. Raises ArtifactCorrupt at the end."""
    view = as_bytes(out)
    while view:
        count = os.preadv(descriptor, [view[:MOST_BYTES]], offset)
        if count == 0:
            raise ArtifactCorrupt(what="weights file (it ends before its header says)")
        view, offset = view[count:], offset + count


def map_tensor(descriptor: int, entry: TensorEntry) -> Tensor:
    """One whole tensor where its file has it, mapped for as long as the tensor lives; read-only.

    Raises ArtifactCorrupt where the file ends before it.
    """
    if not entry.size_bytes:
        return torch.empty(entry.shape, dtype=TORCH_DTYPES[entry.dtype])
    begin = entry.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    try:
        mapped = mmap.mmap(descriptor, entry.end - begin, MAP_FLAGS, mmap.PROT_READ, offset=begin)
    except ValueError:  # Python compares with the file's size first
        raise ArtifactCorrupt(what="weights file (it ends before its header says)") from None
    flat = read_only(mapped, torch.uint8)[entry.begin - begin :]
    return flat.view(TORCH_DTYPES[entry.dtype]).view(entry.shape)


def read_tensor(descriptor: int, entry: TensorEntry) -> Tensor:
    """One whole tensor, or one expert's part of it."""
    if entry.part:
        return part_of(map_tensor(descriptor, entry.whole), entry.part).clone()
    out = torch.empty(entry.shape, dtype=TORCH_DTYPES[entry.dtype])
    read_exactly(descriptor, entry.begin, out)
    return out


def part_of(whole: Tensor, part: Part | None) -> Tensor:
    """A view of one expert's rows or columns, or of everything."""
    if part is None:
        return whole
    if part.axis == 1:
        return whole[:, part.index :: part.count]
    return whole.chunk(part.count)[part.index]


def finite(tensor: Tensor, name: str, source: str) -> Tensor:
    """The tensor itself. Raises NonFiniteTensor where it holds NaN or infinity."""
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteTensor(tensor=name, source=source)
    return tensor


@dataclass
class OpenCheckpoint:
    """Opens each shard once, when first asked for, and closes all at the end."""

    checkpoint: Checkpoint
    _descriptors: dict[Path, int] = field(default_factory=dict)

    def weight(self, module: str) -> FileWeight:
        """The weight of a module by its full name. Raises KeyError."""
        stored = self.checkpoint.weight(module)
        if stored is None:
            raise KeyError(module)
        first, *below = (self._file_weight(part) for part in (stored, *stored.below))
        name = " and ".join(part.name for part in (first, *below))
        return replace(first, name=name, below=tuple(below))

    def bias(self, module: str) -> Tensor | None:
        """A module's bias in a dtype that is computed with; None where there is none."""
        stored = self.checkpoint.part(module, "bias")
        if stored is None or stored.entry.dtype not in TORCH_DTYPES:
            return None
        weight = self._file_weight(stored)
        return read_tensor(weight.descriptor, weight.entry)

    def _file_weight(self, stored: ShardTensor) -> FileWeight:
        self.checkpoint.have([stored])
        if stored.file not in self._descriptors:
            self._descriptors[stored.file] = os.open(stored.file, os.O_RDONLY)
        return FileWeight(stored.entry.name, stored.entry, self._descriptors[stored.file])

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


@dataclass(frozen=True)
class ModelPair:
    """The chat and the base model side by side."""

    chat: OpenCheckpoint
    base: OpenCheckpoint

    def difference(self, module: Shaped) -> Difference:
        """`V` of one module, joined by its full name; of a vocabulary, the rows that all have."""
        chat, base = (model.weight(module.name) for model in (self.chat, self.base))
        if has_vocabulary_rows(module):
            vocabulary = module.d_in if module.layer_type == "embedding" else module.d_out
            shared = min(chat.shape[0], base.shape[0], vocabulary)
            chat, base = chat.first_rows(shared), base.first_rows(shared)
        return Difference(chat, base, self.is_transposed(module))

    def is_transposed(self, module: Shaped) -> bool:
        """Whether the stored rows of the module's weight are columns of it."""
        model_type = self.chat.checkpoint.model_type
        return module.layer_type == "embedding" or is_stored_transposed(model_type, module.name)


@contextmanager
def open_pair(chat: Checkpoint, base: Checkpoint) -> Iterator[ModelPair]:
    pair = ModelPair(OpenCheckpoint(chat), OpenCheckpoint(base))
    try:
        yield pair
    finally:
        pair.chat.close()
        pair.base.close()
