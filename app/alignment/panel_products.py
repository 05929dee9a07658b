"""`V (V^T B)` over panels: in float32 on torch's threads, or on a processor's bfloat16 units."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from app.alignment import matrix_units
from app.alignment.blocks import Scratch
from app.alignment.difference import SquaredNorm, work_dtype
from app.alignment.matrix_units import PARTS, Gemm, joined, parts
from app.alignment.panels import HeldPanels, add_squares, widened

CUTS = 4  # of a panel's columns, one for each of four cores: 1.4 times as fast as all on one
HALVES = 2  # of its rows; with more columns of B, the faster cut, and one that sums in order
FEW_COLUMNS = 16  # of B
UNIT_COLUMNS = 128  # of B at once on the units: bounds the memory for their parts
PLAIN_EXPONENT = 60  # of B's largest element, either way: its parts neither vanish nor overflow


def apply_panels(
    panels: HeldPanels, b: Tensor, scratch: Scratch, squares: SquaredNorm | None = None
) -> Tensor:
    """`V V^T b` for `b` `(d_out, n)`; in float32, or float64 where `V` is. `squares`, where given,
    gets `||V||_F^2` in the same pass.

    `b` may hold the columns of several adapters side by side. A `V` with NaN or infinity gives a
    product without meaning. Either way the relative error against float64 is below 2e-6 for `d_out`
    up to 4096, and grows with its root from there.
    """
    on_units = panels.dtype == torch.bfloat16 and b.numel() > 0
    gemm = matrix_units.bf16_gemm() if on_units else None
    if gemm is None:
        return _wide(panels, b, scratch, squares)
    return _on_units(panels, b, scratch, squares, gemm)


# --------------------------------------------------------------------------------- in float32
def _wide(panels: HeldPanels, b: Tensor, scratch: Scratch, squares: SquaredNorm | None) -> Tensor:
    """Each panel, widened, gives `T_j = V_j^T B` and `V_j T_j` while it lies in the caches."""
    b = b.to(work_dtype(panels.dtype))
    wide = _widened(panels, scratch, squares)
    return _of_few(wide, b) if b.shape[1] < FEW_COLUMNS else _of_many(wide, b)


def _widened(panels: HeldPanels, scratch: Scratch, squares: SquaredNorm | None) -> Iterator[Tensor]:
    for panel in panels.tensor:
        wide = widened(panel, scratch)
        if squares is not None:
            squares.add(wide)
        yield panels.layout.columns(wide)


def _of_few(panels: Iterable[Tensor], b: Tensor) -> Tensor:
    """Each cut of columns has its own part of `T`, and its own sum."""
    b_t = b.T.contiguous()
    products = b_t.new_zeros(CUTS, *b_t.shape)
    for panel in panels:
        cut = _cut(panel, 1, CUTS)
        products[: len(cut)].baddbmm_(b_t.expand(len(cut), -1, -1) @ cut, cut.mT)
    return products.sum(0).T.contiguous()


def _of_many(panels: Iterable[Tensor], b: Tensor) -> Tensor:
    """`T_j^T` is the sum of what the cuts of rows give; each has its own rows of the product."""
    product = torch.zeros_like(b)
    rows, given = _cut(product, 0, HALVES), _cut(b, 0, HALVES)
    for panel in panels:
        cut = _cut(panel, 0, HALVES)
        t_t = (given.mT @ cut).sum(0)
        rows.baddbmm_(cut, t_t.T.expand(len(cut), -1, -1))
    return product


def _cut(matrix: Tensor, dim: int, cuts: int) -> Tensor:
    """A view `(cuts, ...)` of the matrix cut along `dim`; one cut where it cannot be cut evenly."""
    cuts = cuts if matrix.shape[dim] % cuts == 0 else 1
    return torch.unflatten(matrix, dim, (cuts, -1)).movedim(dim, 0)


# --------------------------------------------------------------------------- on the matrix units
def _on_units(
    panels: HeldPanels, b: Tensor, scratch: Scratch, squares: SquaredNorm | None, gemm: Gemm
) -> Tensor:
    """`T` whole, then the product: cutting `T` into parts panel by panel took as long as both."""
    scale = _power_near(b)
    first, *others = torch.split(b.float() * (1 / scale), UNIT_COLUMNS, dim=1)
    products = [_unit_product(panels, first, scratch, squares, gemm)]
    products += (_unit_product(panels, some, scratch, None, gemm) for some in others)
    return torch.cat(products, dim=1) * scale


def _power_near(b: Tensor) -> float:
    """A power of two near the largest element, where that is far from 1; scaling is exact."""
    exponent = int(torch.frexp(b.abs().max()).exponent)
    return 2.0**exponent if abs(exponent) > PLAIN_EXPONENT else 1.0


def _unit_product(
    panels: HeldPanels, b: Tensor, scratch: Scratch, squares: SquaredNorm | None, gemm: Gemm
) -> Tensor:
    layout, given = panels.layout, parts(b)
    t = torch.empty(layout.count, layout.width, given.shape[1])
    for panel, of_panel in zip(panels.tensor, t, strict=True):
        gemm(layout.columns(panel).T, given, of_panel)
        if squares is not None:
            add_squares(panel, squares, scratch)
    t_parts = parts(joined(t.flatten(0, 1))).view(layout.count, layout.width, -1)
    product = torch.zeros(layout.d_out, PARTS * b.shape[1])
    for panel, of_panel in zip(panels.tensor, t_parts, strict=True):
        gemm(layout.columns(panel), of_panel, product, add=True)
    return joined(product)
