"""`G = V V^T`, for a wide `V`: where `d_out` is small it is less to keep and to read than `V`.

`C B = G B / ||V||_F`. It costs what the dense `C` costs (2 d_out^2 d_in flops), so it is made ahead
of time only, never while an adapter waits.
"""

import torch
from torch import Tensor

from app.alignment.blocks import Scratch
from app.alignment.difference import work_dtype
from app.alignment.panels import Panels

GRAM_ROWS = 256  # read, and checked, at once


def gram_bytes(d_out: int) -> int:
    """Of the float32 matrix."""
    return 4 * d_out * d_out


def gram(panels: Panels, scratch: Scratch) -> Tensor:
    """`V V^T`, `(d_out, d_out)` float32, summed over the panels in float64."""
    layout = panels.layout
    wide = scratch.take("wide", layout.panel_shape, work_dtype(panels.dtype))
    total = torch.zeros(layout.d_out, layout.d_out, dtype=torch.float64)
    for i in range(layout.count):
        columns = layout.columns(wide.copy_(panels.group(i, i + 1)[0]))
        total += columns @ columns.T
    return total.float()
