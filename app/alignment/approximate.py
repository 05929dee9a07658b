"""Safe LoRA's shipped projector, `C = V V^T / ||V||_F`, applied without building `C`.

`C B = V (V^T B) / ||V||_F` costs 4 d_out d_in r flops instead of 2 d_out^2 d_in, and no
`d_out x d_out` matrix.

It is not a projection: it scales with `||V||` and mostly shrinks what it touches, which is why
every report carries `retained_energy`.
"""

import math

import torch
from torch import Tensor

from app.alignment.blocks import Scratch
from app.alignment.difference import Difference, SquaredNorm
from app.alignment.panel_products import apply_panels
from app.alignment.panels import hold, kept_bytes

HELD_BYTES = 512 << 20  # the largest V that is held as panels, so that memory stays below 1 GiB


def apply_approximate(v: Difference, b: Tensor, scratch: Scratch) -> tuple[Tensor, float]:
    """`(V V^T B / ||V||_F, ||V||_F)` for `b` `(d_out, n)`; the product in `v.work_dtype`.

    `b` may hold the columns of several adapters side by side; the reading is shared by all. A zero
    `V` gives a zero product; a `V` with NaN or infinity gives a norm that is not finite, and a
    product without meaning.
    """
    if kept_bytes(v) <= HELD_BYTES:
        squares = SquaredNorm()
        product = apply_panels(hold(v, scratch).panels, b, scratch, squares)
        squared = squares.value
    else:
        product, squared = apply_rows(v, b)
    return scaled(product, math.sqrt(squared)), math.sqrt(squared)


def scaled(product: Tensor, norm: float) -> Tensor:
    """`V V^T B` divided by `||V||_F`; zero for a zero `V`."""
    return product / norm if norm else torch.zeros_like(product)


def apply_rows(v: Difference, b: Tensor) -> tuple[Tensor, float]:
    """`(V V^T b, ||V||_F^2)` of a `V` that is too large to be held: the exact difference, block by
    block, read twice."""
    b_t = b.to(v.work_dtype).T.contiguous()
    product, t_t = torch.zeros_like(b_t), b_t.new_zeros(b_t.shape[0], v.d_in)
    squared = SquaredNorm()
    for rows in v.blocks():
        block = _exact(v, rows)
        squared.add(block)
        if v.transposed:
            product.addmm_(b_t @ block.T, block)
        else:
            t_t.addmm_(b_t[:, rows], block)
    if not v.transposed:
        for rows in v.blocks():
            product[:, rows] = t_t @ _exact(v, rows).T
    return product.T.contiguous(), squared.value


def _exact(v: Difference, rows: slice) -> Tensor:
    """Stored rows of the difference in the work dtype."""
    chat, base = (weight.rows(rows.start, rows.stop) for weight in (v.chat, v.base))
    return chat.to(v.work_dtype, copy=True).sub_(base)
