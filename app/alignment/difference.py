"""`V = W_chat - W_base` of one module, as two stored weights that are read by rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 19  # 1 MiB in bfloat16: half of a block fits a core's L2 cache
NORM_RUN = 512  # squares summed in float32 before float64 takes over: 2e-9 off, measured


class StoredWeight(Protocol):
    """A 2-D weight that can be read by rows."""

    @property
    def name(self) -> str:
        """The full tensor name, for messages."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) as stored."""

    @property
    def dtype(self) -> torch.dtype:
        """A float dtype."""

    def rows(self, begin: int, end: int) -> Tensor:
        """Rows `begin..end`, `(end - begin, shape[1])` of `dtype`, contiguous; not to be written
        to, and good until the next call."""


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

    def rows(self, begin: int, end: int) -> Tensor:
        return self.tensor[begin:end]


@dataclass(frozen=True)
class Difference:
    """`V` of one module as two stored weights of the same shape.

    `transposed` is for GPT-2's `Conv1D`, whose weight is stored `(d_in, d_out)`: a stored row is
    then a column of `V`.
    """

    chat: StoredWeight
    base: StoredWeight
    transposed: bool = False

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
    def kept_dtype(self) -> torch.dtype:
        """The checkpoints' dtype, or what holds both where they differ."""
        return torch.promote_types(self.chat.dtype, self.base.dtype)

    @property
    def work_dtype(self) -> torch.dtype:
        """float32, or float64 where a checkpoint is stored in float64."""
        return work_dtype(self.kept_dtype)

    def blocks(self, elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
        """The stored rows in blocks, cut by the shape alone."""
        rows, columns = self.chat.shape
        size = max(1, elements // columns)
        return (slice(at, min(rows, at + size)) for at in range(0, rows, size))

    def dense(self) -> Tensor:
        """`V` whole, `(d_out, d_in)` float64: for factorising only. The difference is exact."""
        chat, base = (weight.rows(0, weight.shape[0]) for weight in (self.chat, self.base))
        stored = chat.to(torch.float64, copy=True).sub_(base)
        return stored.T if self.transposed else stored


def work_dtype(kept: torch.dtype) -> torch.dtype:
    """What sums over weights of a dtype are taken in: float32, for float64 weights float64."""
    return torch.float64 if kept == torch.float64 else torch.float32


class SquaredNorm:
    """`||V||_F^2`, added up block by block: short runs in the blocks' dtype, their sum in float64.

    A float32 norm over a whole 4096 x 4096 matrix was 7e-4 off on the CPU.
    """

    def __init__(self) -> None:
        self._runs: list[Tensor] = []

    def add(self, block: Tensor) -> None:
        """`block` is contiguous, float32 or float64."""
        flat = block.view(-1)
        whole = flat.numel() // NORM_RUN * NORM_RUN
        runs = flat[:whole].view(whole // NORM_RUN, NORM_RUN)
        self._runs.append(torch.linalg.vector_norm(runs, dim=1))
        if whole < flat.numel():
            rest = torch.linalg.vector_norm(flat[whole:], dtype=torch.float64)
            self._runs.append(rest.to(block.dtype)[None])

    def join(self, others: Iterable["SquaredNorm"]) -> None:
        """Add what they have added up, in their order."""
        self._runs += (run for other in others for run in other._runs)

    @property
    def value(self) -> float:
        """Not finite where a block held NaN or infinity."""
        return float(torch.cat(self._runs).double().square().sum()) if self._runs else 0.0
