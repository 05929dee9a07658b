"""`V (V^T B)` over panels: in float32 on torch's threads, or on a processor's bfloat16 units."""

import torch
from torch import Tensor

from app.alignment import matrix_units
from app.alignment.blocks import Scratch
from app.alignment.difference import work_dtype
from app.alignment.matrix_units import PARTS, Gemm, joined, parts
from app.alignment.panels import HeldPanels, PanelLayout, widened

CUTS = 4  # of a panel, one for each of four cores: 1.2 times as fast as all cores on one
FEW_COLUMNS = 64  # of B; with more, all cores on one cut are as fast
UNIT_COLUMNS = 128  # of B at once on the units: bounds the memory for their parts
PLAIN_EXPONENT = 60  # of B's largest element, either way: its parts neither vanish nor overflow


def apply_panels(panels: HeldPanels, b: Tensor, scratch: Scratch) -> Tensor:
    """`V V^T b` for `b` `(d_out, n)`; in float32, or float64 where `V` is.

    `b` may hold the columns of several adapters side by side. A `V` with NaN or infinity gives a
    product without meaning. Either way the relative error against float64 is below 2e-6 for `d_out`
    up to 4096, and grows with its root from there.
    """
    on_units = panels.dtype == torch.bfloat16 and b.numel() > 0
    gemm = matrix_units.bf16_gemm() if on_units else None
    return _wide(panels, b, scratch) if gemm is None else _on_units(panels, b, gemm)


# --------------------------------------------------------------------------------- in float32
def _wide(panels: HeldPanels, b: Tensor, scratch: Scratch) -> Tensor:
    """Each panel, widened, gives `T_j = V_j^T B` and `V_j T_j` while it lies in the caches."""
    layout = panels.layout
    b_t = b.to(work_dtype(panels.dtype)).T.contiguous()
    at_once = 1 if len(b_t) > FEW_COLUMNS else CUTS
    products = b_t.new_zeros(at_once, *b_t.shape)
    for panel in panels.tensor:
        for kept in torch.split(_cut(layout, panel), at_once):
            wide = widened(kept, scratch)
            columns = layout.columns(wide)
            few = products[: len(wide)]
            few.baddbmm_(b_t.expand(len(wide), -1, -1) @ columns, columns.mT)
    return products.sum(0).T.contiguous()


def _cut(layout: PanelLayout, panel: Tensor) -> Tensor:
    """A panel as kept, as several narrower ones, `(cuts, ...)`."""
    cuts = CUTS if layout.width % CUTS == 0 else 1
    if layout.by_columns:
        return panel.view(cuts, -1, layout.d_out)
    return panel.view(layout.d_out, cuts, -1).transpose(0, 1)


# --------------------------------------------------------------------------- on the matrix units
def _on_units(panels: HeldPanels, b: Tensor, gemm: Gemm) -> Tensor:
    """`T` whole, then the product: cutting `T` into parts panel by panel took as long as both."""
    scale = _power_near(b)
    few = torch.split(b.float() * (1 / scale), UNIT_COLUMNS, dim=1)
    return torch.cat([_unit_product(panels, some, gemm) for some in few], dim=1) * scale


def _power_near(b: Tensor) -> float:
    """A power of two near the largest element, where that is far from 1; scaling is exact."""
    exponent = int(torch.frexp(b.abs().max()).exponent)
    return 2.0**exponent if abs(exponent) > PLAIN_EXPONENT else 1.0


def _unit_product(panels: HeldPanels, b: Tensor, gemm: Gemm) -> Tensor:
    layout, given = panels.layout, parts(b)
    columns = [layout.columns(panel) for panel in panels.tensor]
    t = torch.empty(layout.count, layout.width, given.shape[1])
    for panel, of_panel in zip(columns, t, strict=True):
        gemm(panel.T, given, of_panel)
    t_parts = parts(joined(t.flatten(0, 1))).view(layout.count, layout.width, -1)
    product = torch.zeros(layout.d_out, PARTS * b.shape[1])
    for panel, of_panel in zip(columns, t_parts, strict=True):
        gemm(panel, of_panel, product, add=True)
    return joined(product)
