"""`V = W_chat - W_base` of one module, read in row blocks and never kept whole.

A block of 2^19 elements (2 MiB in float32) stays in the caches between the subtraction, the norm
and the product, so the work is bound by reading the two weights. The rows are cut into runs by the
matrix's size alone, and each run has its own sums, added in order: the same input gives the same
bits on any number of threads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from app.alignment.blocks import BlockPool

T = TypeVar("T")

BLOCK_ELEMENTS = 1 << 19
RUNS = 8  # as many threads as can work on one matrix
NORM_RUN = 512  # squares summed in float32 before float64 takes over: 2e-9 relative error measured


class StoredWeight(Protocol):
    """A 2-D weight that can be read by rows; reads may come from several threads at once."""

    @property
    def name(self) -> str:
        """The full tensor name, for messages."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) as stored."""

    @property
    def dtype(self) -> torch.dtype:
        """A float dtype."""

    def read_rows(self, begin: int, out: Tensor) -> None:
        """Fill `out`, `(n, shape[1])` of `dtype` and contiguous, with rows `begin..begin+n`."""


@dataclass(frozen=True)
class TensorWeight:
    """A weight that is already in memory."""

    name: str
    tensor: Tensor  # (rows, columns)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.tensor.shape
        return rows, columns

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def read_rows(self, begin: int, out: Tensor) -> None:
        out.copy_(self.tensor[begin : begin + out.shape[0]])


@dataclass(frozen=True)
class Difference:
    """`V` of one module as two stored weights of the same shape.

    `transposed` is for GPT-2's `Conv1D`, whose weight is stored `(d_in, d_out)`: a stored row is
    then a column of `V`.
    """

    chat: StoredWeight
    base: StoredWeight
    transposed: bool = False
    pool: BlockPool = field(default_factory=BlockPool)

    def __post_init__(self) -> None:
        if self.chat.shape != self.base.shape:
            raise ValueError(f"{self.chat.name}: {self.chat.shape} against {self.base.shape}")

    @property
    def d_out(self) -> int:
        return self.chat.shape[1 if self.transposed else 0]

    @property
    def d_in(self) -> int:
        return self.chat.shape[0 if self.transposed else 1]

    @property
    def work_dtype(self) -> torch.dtype:
        """float32, or float64 where a checkpoint is stored in float64."""
        wide = torch.float64 in (self.chat.dtype, self.base.dtype)
        return torch.float64 if wide else torch.float32

    def over_rows(self, work: Callable[[Iterator[tuple[slice, Tensor]]], T]) -> list[T]:
        """Run `work` over the stored rows, split between the threads; its results in row order.

        `work` gets an iterator of (rows, block), `block` being those stored rows of the difference
        in `work_dtype`; the block's memory is used again for the next one.
        """
        return self.pool.map(lambda span: work(self._blocks(span)), self._spans())

    def _spans(self) -> list[range]:
        rows, columns = self.chat.shape
        return _cut(rows, RUNS if rows * columns >= RUNS * BLOCK_ELEMENTS else 1)

    def _blocks(self, span: range) -> Iterator[tuple[slice, Tensor]]:
        columns = self.chat.shape[1]
        rows = max(1, min(len(span), BLOCK_ELEMENTS // columns))
        chat = self.pool.buffer("chat", rows, columns, self.chat.dtype)
        base = self.pool.buffer("base", rows, columns, self.base.dtype)
        block = self.pool.buffer("block", rows, columns, self.work_dtype)
        wide_base = self.pool.buffer("wide base", rows, columns, self.work_dtype)
        for begin in range(span.start, span.stop, rows):
            n = min(rows, span.stop - begin)
            self.chat.read_rows(begin, chat[:n])
            self.base.read_rows(begin, base[:n])
            block[:n].copy_(chat[:n])
            wide_base[:n].copy_(base[:n])
            yield slice(begin, begin + n), block[:n].sub_(wide_base[:n])

    def dense(self) -> Tensor:
        """`V` whole, `(d_out, d_in)` float64: for factorising only. The difference is exact."""
        stored = _whole(self.chat).double().sub_(_whole(self.base))
        return stored.T if self.transposed else stored


def squared_norm(block: Tensor) -> float:
    """`||block||_F^2`: short runs in the block's dtype, their sum in float64.

    A float32 norm over a whole 4096 x 4096 matrix was 7e-4 off on the CPU.
    """
    flat = block.reshape(-1)
    whole = flat.numel() // NORM_RUN * NORM_RUN
    runs = torch.linalg.vector_norm(flat[:whole].view(whole // NORM_RUN, NORM_RUN), dim=1)
    rest = torch.linalg.vector_norm(flat[whole:], dtype=torch.float64)
    return float(runs.double().square().sum() + rest.square())


def _whole(weight: StoredWeight) -> Tensor:
    out = torch.empty(weight.shape, dtype=weight.dtype)
    weight.read_rows(0, out)
    return out


def _cut(rows: int, runs: int) -> list[range]:
    """`rows` cut into at most `runs` runs of nearly the same length."""
    size = -(-rows // runs)
    return [range(begin, min(rows, begin + size)) for begin in range(0, rows, size)]
