"""Safe LoRA's shipped projector, `C = V V^T / ||V||_F`, applied without building `C`.

`C B = V (V^T B) / ||V||_F` costs 4 d_out d_in r flops instead of 2 d_out^2 d_in, and no
`d_out x d_out` matrix. All factors are held transposed, `(r, ...)`, which the CPU's matrix products
like best for small `r`.

It is not a projection: it scales with `||V||` and mostly shrinks what it touches, which is why
every report carries `retained_energy`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from app.alignment.difference import Difference, squared_norm

Blocks = Iterator[tuple[slice, Tensor]]


def apply_approximate(v: Difference, b: Tensor) -> tuple[Tensor, float]:
    """`(V V^T B / ||V||_F, ||V||_F)` for `b` `(d_out, r)`; the product in `v.work_dtype`.

    `b` may hold the columns of several adapters side by side; the reading is shared by all. A zero
    `V` gives a zero product; a `V` with NaN or infinity gives a norm that is not finite, and a
    product without meaning.
    """
    b_t = b.to(v.work_dtype).T.contiguous()
    product, squared = (_columns_stored if v.transposed else _rows_stored)(v, b_t)
    norm = math.sqrt(squared)
    return (product.T / norm if norm else torch.zeros_like(product.T)).contiguous(), norm


def _rows_stored(v: Difference, b_t: Tensor) -> tuple[Tensor, float]:
    """Stored rows are rows of `V`: one pass for `T = V^T B` and the norm, one for `V T`."""

    def first(blocks: Blocks) -> tuple[Tensor, float]:
        t_t, squared = b_t.new_zeros(b_t.shape[0], v.d_in), 0.0
        for rows, block in blocks:
            t_t.addmm_(b_t[:, rows], block)
            squared += squared_norm(block)
        return t_t, squared

    def second(blocks: Blocks) -> None:
        for rows, block in blocks:
            product[:, rows] = t_t @ block.T

    parts = v.over_rows(first)
    t_t, squared = _total([t for t, _ in parts]), math.fsum(s for _, s in parts)
    product = torch.zeros_like(b_t)
    if squared and math.isfinite(squared):
        v.over_rows(second)
    return product, squared


def _columns_stored(v: Difference, b_t: Tensor) -> tuple[Tensor, float]:
    """Stored rows are columns of `V`: a block gives its part of `T` and of `V T` at once."""

    def only(blocks: Blocks) -> tuple[Tensor, float]:
        product, squared = torch.zeros_like(b_t), 0.0
        for _, block in blocks:
            product.addmm_(b_t @ block.T, block)
            squared += squared_norm(block)
        return product, squared

    parts = v.over_rows(only)
    return _total([p for p, _ in parts]), math.fsum(s for _, s in parts)


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
