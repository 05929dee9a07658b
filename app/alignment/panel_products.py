"""`V (V^T B)` over panels: in float32, by torch or numpy, or on a processor's bfloat16 units."""

import torch
from torch import Tensor

from app.alignment import matrix_units, numpy_products
from app.alignment.blocks import Scratch
from app.alignment.difference import SquaredNorm, work_dtype
from app.alignment.matrix_units import PARTS, Gemm, joined, parts
from app.alignment.panels import HeldPanels, add_squares, widened

HALVES = 2  # of a panel's rows: as fast as one whole to twice as fast, and it sums in order
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
    if gemm is None and numpy_products.chosen():
        chunks = numpy_products.InMemory(panels.tensor)
        return numpy_products.apply_panels(panels.layout, chunks, b, scratch, squares)
    if gemm is None:
        return _wide(panels, b, scratch, squares)
    return _on_units(panels, b, scratch, squares, gemm)


# --------------------------------------------------------------------------------- in float32
def _wide(panels: HeldPanels, b: Tensor, scratch: Scratch, squares: SquaredNorm | None) -> Tensor:
    """Each panel, widened, gives `T_j = V_j^T B` and `V_j T_j` while it lies in the caches: `T_j^T`
    is the sum of what the halves of its rows give, and each half gives its rows of the product."""
    b = b.to(work_dtype(panels.dtype))
    product = torch.zeros_like(b)
    rows, given = _halves(product), _halves(b)
    for panel in panels.tensor:
        wide = widened(panel, scratch)
        if squares is not None:
            squares.add(wide)
        halves = _halves(panels.layout.columns(wide))
        t_t = (given.mT @ halves).sum(0)
        rows.baddbmm_(halves, t_t.T.expand(len(halves), -1, -1))
    return product


def _halves(matrix: Tensor) -> Tensor:
    """A view `(2, rows / 2, columns)` of the matrix; `(1, rows, columns)` of an odd one."""
    return torch.unflatten(matrix, 0, (HALVES if len(matrix) % HALVES == 0 else 1, -1))


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
