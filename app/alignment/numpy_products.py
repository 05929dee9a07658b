"""`V (V^T B)` and `V V^T B` by numpy's products, in threads of our own.

For processors on which torch's are the slower ones (`app.processor`). A thread takes a share of the
panels or tiles and has each of its chunks checked, widened and multiplied while it lies in the
caches. The shares are the same for any number of threads, and so is every bit of the product.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

import app
from app.alignment.blocks import Scratch
from app.alignment.difference import SquaredNorm, work_dtype
from app.alignment.gram import Tiling
from app.alignment.panels import PANEL_ELEMENTS, PanelLayout
from app.alignment.thin import Matrix, times, transposed_times
from app.alignment.threads import share

SHARES = 16  # each has a sum of its own, added up in their order
MOST_COLUMNS = 128  # of B at once
SUMS_BYTES = 128 << 20  # at most; of more than 16384 rows fewer columns go at once


class Chunks(Protocol):
    """Panels or tiles, some at a time."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def size(self) -> int:
        """Panels or tiles in each chunk but the last."""

    @property
    def count(self) -> int:
        """Chunks."""

    def take(self, i: int, scratch: Scratch) -> Tensor:
        """The `i`-th chunk, which may lie in the scratch memory as "chunk"; may raise, and the
        product does then."""


@dataclass(frozen=True)
class InMemory:
    """Panels or tiles that nobody has to check, each a chunk."""

    tensor: Tensor
    size: int = 1

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def count(self) -> int:
        return len(self.tensor)

    def take(self, i: int, scratch: Scratch) -> Tensor:
        return self.tensor[i : i + 1]


def chosen() -> bool:
    """Whether this process multiplies so."""
    return app.NUMPY_MULTIPLIES


# ------------------------------------------------------------------------------------------- panels
def apply_panels(
    layout: PanelLayout,
    panels: Chunks,
    b: Tensor,
    scratch: Scratch,
    squares: SquaredNorm | None = None,
) -> Tensor:
    """As `panel_products.apply_panels`, and as exact. Raises ValueError for another `d_out`."""
    if len(b) != layout.d_out:
        raise ValueError(f"{len(b)} rows of columns, and a size of {layout.d_out}")
    products = []
    norms = None if squares is None else [SquaredNorm() for _ in range(panels.count)]
    for some in _columns_at_once(b.to(work_dtype(panels.dtype))):
        product = PanelProduct(layout, panels, some.contiguous().numpy(), norms)
        products.append(_summed(product.add, panels.count, some, scratch))
        if squares is not None and norms is not None:
            squares.join(norms)
        norms = None
    return torch.cat(products, dim=1)


@dataclass(frozen=True)
class PanelProduct:
    layout: PanelLayout
    panels: Chunks
    b: Matrix  # (d_out, n)
    norms: Sequence[SquaredNorm] | None  # of each chunk

    def add(self, chunk: int, total: Matrix, scratch: Scratch) -> None:
        norm = self.norms[chunk] if self.norms else None
        for panel in self.panels.take(chunk, scratch):
            self._add(panel, total, scratch, norm)

    def _add(
        self, panel: Tensor, total: Matrix, scratch: Scratch, norm: SquaredNorm | None
    ) -> None:
        """`V_j (V_j^T B)`. A panel that is too tall for the caches is widened block by block, and
        again for the second product."""
        t = np.zeros((self.layout.width, self.b.shape[1]), self.b.dtype)
        for rows in self._blocks:
            wide = self._widened(panel, rows, scratch)
            if norm is not None:
                norm.add(wide)
            t += transposed_times(self._columns(wide), self.b[rows])
        for rows in reversed(self._blocks):
            if rows is not self._blocks[-1]:  # the last one is still there
                wide = self._widened(panel, rows, scratch)
            total[rows] += times(self._columns(wide), t, scratch)

    @cached_property
    def _blocks(self) -> Sequence[slice]:
        """Rows of `V`, evenly cut."""
        d_out = self.layout.d_out
        size = -(-d_out // -(-d_out * self.layout.width // PANEL_ELEMENTS))
        return [slice(at, min(d_out, at + size)) for at in range(0, d_out, size)]

    def _widened(self, panel: Tensor, rows: slice, scratch: Scratch) -> Tensor:
        part = panel[:, rows] if self.layout.by_columns else panel[rows]
        return scratch.take("wide", tuple(part.shape), work_dtype(part.dtype)).copy_(part)

    def _columns(self, wide: Tensor) -> Matrix:
        found: Matrix = self.layout.columns(wide).numpy()
        return found


# -------------------------------------------------------------------------------------------- tiles
def apply_gram(tiling: Tiling, tiles: Chunks, b: Tensor, scratch: Scratch) -> Tensor:
    """As `gram.apply_gram`, and as exact."""
    products = []
    for some in _columns_at_once(b.float()):
        cut = tiling.cut(some)
        product = TileProduct(tiles, cut.numpy())
        products.append(tiling.joined(_summed(product.add, tiles.count, cut, scratch)))
    return torch.cat(products, dim=1)


@dataclass(frozen=True)
class TileProduct:
    tiles: Chunks
    b: Matrix  # (across, rows, n)

    def add(self, chunk: int, total: Matrix, scratch: Scratch) -> None:
        places = self._places(chunk * self.tiles.size)
        for tile, (i, j) in zip(self.tiles.take(chunk, scratch).numpy(), places, strict=False):
            total[i] += times(tile, self.b[j], scratch)
            if i != j:
                total[j] += transposed_times(tile, self.b[i])

    def _places(self, first: int) -> Iterator[tuple[int, int]]:
        """Of the tiles from there on: the row and the column."""
        places = ((i, j) for i in range(len(self.b)) for j in range(i + 1))
        return islice(places, first, None)


# ---------------------------------------------------------------------------------------------- all
Add = Callable[[int, Matrix, Scratch], None]


def _columns_at_once(b: Tensor) -> Sequence[Tensor]:
    fitting = SUMS_BYTES // (SHARES * max(1, len(b)) * b.itemsize)
    return torch.split(b, max(1, min(MOST_COLUMNS, fitting)), dim=1)


def _summed(add: Add, chunks: int, like: Tensor, scratch: Scratch) -> Tensor:
    """What `add` adds of each chunk to zeros, in the shape and dtype of `like`."""
    shares = min(SHARES, chunks)
    totals = scratch.take("totals", (shares, *like.shape), like.dtype).zero_()

    def work(thread: int, left: Iterator[int]) -> None:
        own = scratch.of_thread(thread)
        with np.errstate(all="ignore"):  # V may not be finite; its norm tells
            for i in left:
                for chunk in range(i * chunks // shares, (i + 1) * chunks // shares):
                    add(chunk, totals[i].numpy(), own)

    share(work, shares, scratch)
    return totals.sum(0)
