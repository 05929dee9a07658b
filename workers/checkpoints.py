"""A checkpoint's weights, read lazily by name and by rows.

Bytes come by `preadv` into buffers that are used again: on two cores that was measured at a fifth
of the time of page-faulting a fresh memory map, and it keeps memory flat.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from app.alignment.blocks import BlockPool
from app.alignment.difference import Difference
from app.domain.adapter import LoraModule, TensorEntry
from app.domain.architecture import is_stored_transposed
from app.domain.checkpoint import Checkpoint
from app.domain.errors import ArtifactCorrupt, NonFiniteTensor

MOST_BYTES = 1 << 30  # in one call, because macOS refuses more than 2^31 - 1

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

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.entry.shape
        return rows, columns

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.entry.dtype]

    def read_rows(self, begin: int, out: Tensor) -> None:
        offset = self.entry.begin + begin * self.shape[1] * out.element_size()
        read_exactly(self.descriptor, offset, out)


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def read_exactly(descriptor: int, offset: int, out: Tensor) -> None:
    """Fill a contiguous tensor with the bytes at `offset`. Raises ArtifactCorrupt at the end."""
    view = as_bytes(out)
    while view:
        count = os.preadv(descriptor, [view[:MOST_BYTES]], offset)
        if count == 0:
            raise ArtifactCorrupt(what="weights file (it ends before its header says)")
        view, offset = view[count:], offset + count


def read_tensor(descriptor: int, entry: TensorEntry) -> Tensor:
    """One whole tensor."""
    out = torch.empty(entry.shape, dtype=TORCH_DTYPES[entry.dtype])
    read_exactly(descriptor, entry.begin, out)
    return out


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
    pool: BlockPool

    def difference(self, module: LoraModule) -> Difference:
        """`V` of one module, joined by its full name."""
        transposed = is_stored_transposed(self.chat.checkpoint.model_type, module.name)
        return Difference(
            self.chat.weight(module.name), self.base.weight(module.name), transposed, self.pool
        )


@contextmanager
def open_pair(chat: Checkpoint, base: Checkpoint, *, threads: int) -> Iterator[ModelPair]:
    pair = ModelPair(OpenCheckpoint(chat), OpenCheckpoint(base), BlockPool(threads))
    try:
        yield pair
    finally:
        pair.pool.close()
        pair.chat.close()
        pair.base.close()
