"""`G = V V^T` in tiles: `C B = G B / ||V||_F` in one pass over what is kept, and all in float32.

`G` is symmetric: only the tiles on and below its diagonal are kept, and each is used both ways. For
`d_out <= d_in` that is about as much to read as `V` in bfloat16, or less, and half the work. Making
it costs half of what the dense `C` costs (d_out^2 d_in flops), so it is made ahead of time only,
never while an adapter waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.alignment import matrix_units
from app.alignment.blocks import Scratch
from app.alignment.panels import HeldPanels

MOST_TILE = 512  # rows: 1 MiB in float32, which a core's L2 cache holds
TILE_STEP = 16  # rows: whole vectors


@dataclass(frozen=True)
class Tiling:
    """How `G` `(d_out, d_out)` is cut: `rows` x `rows` each, filled up with zeros at the end."""

    d_out: int

    @property
    def across(self) -> int:
        return -(-self.d_out // MOST_TILE)

    @property
    def rows(self) -> int:
        return -(-self.d_out // (self.across * TILE_STEP)) * TILE_STEP

    @property
    def count(self) -> int:
        return self.across * (self.across + 1) // 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the kept tiles: (0, 0), (1, 0), (1, 1), (2, 0), ..."""
        return (self.count, self.rows, self.rows)

    @property
    def size_bytes(self) -> int:
        return 4 * self.count * self.rows**2

    def span(self, i: int) -> slice:
        """The rows of `V` that belong to the `i`-th row of tiles."""
        return slice(i * self.rows, min(self.d_out, (i + 1) * self.rows))

    def cut(self, b: Tensor) -> Tensor:
        """`b` `(d_out, n)` as `(across, rows, n)`, filled up with zeros."""
        padded = b.new_zeros(self.across * self.rows, b.shape[1])
        padded[: len(b)] = b
        return padded.view(self.across, self.rows, -1)

    def joined(self, cut: Tensor) -> Tensor:
        """The way back."""
        return cut.reshape(self.across * self.rows, -1)[: self.d_out]

    def check(self, shape: Sequence[int]) -> None:
        """Raises ValueError where tiles of this shape are not cut so."""
        if tuple(shape) != self.shape:
            raise ValueError(f"tiles of shape {tuple(shape)}, not {self.shape}")


def gram(panels: HeldPanels, scratch: Scratch) -> Tensor:
    """`V V^T` as `Tiling.shape` float32; the panels' products are summed in float64."""
    tiling = Tiling(panels.layout.d_out)
    tiles = torch.zeros(tiling.shape)
    for i in range(tiling.across):
        span = tiling.span(i)
        wide = torch.zeros(tiling.rows, (i + 1) * tiling.rows)
        wide[: span.stop - span.start, : span.stop] = _rows(panels, span, scratch)
        first = i * (i + 1) // 2
        tiles[first : first + i + 1] = wide.view(tiling.rows, i + 1, -1).transpose(0, 1)
    return tiles


def _rows(panels: HeldPanels, span: slice, scratch: Scratch) -> Tensor:
    """`G[span, :span.stop]`, float64."""
    total = torch.zeros(span.stop - span.start, span.stop, dtype=torch.float64)
    for panel in panels.tensor:
        columns = panels.layout.columns(panel)
        total += _product(columns[span], columns[: span.stop], scratch)
    return total


def _product(left: Tensor, right: Tensor, scratch: Scratch) -> Tensor:
    """`left @ right.T` in float32."""
    gemm = matrix_units.bf16_gemm() if left.dtype == torch.bfloat16 else None
    if gemm is None:
        return left.float() @ right.float().T
    out = scratch.take("product", (len(left), len(right)), torch.float32)
    gemm(left, right.T, out)
    return out


def apply_gram(tiles: Tensor, b: Tensor) -> Tensor:
    """`V V^T b` for `b` `(d_out, n)`, in float32 and where the tiles are; the error is a float32
    product's.

    Raises ValueError for tiles that are not cut as `Tiling` cuts.
    """
    tiling = Tiling(len(b))
    tiling.check(tiles.shape)
    b_t = tiling.cut(b.to(tiles.dtype)).transpose(1, 2).contiguous()
    product, left = torch.zeros_like(b_t), iter(tiles)
    for i in range(tiling.across):
        for j in range(i + 1):
            tile = next(left)
            product[i].addmm_(b_t[j], tile.T)
            if i != j:
                product[j].addmm_(b_t[i], tile)
    return tiling.joined(product.transpose(1, 2))
