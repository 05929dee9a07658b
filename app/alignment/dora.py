"""DoRA (Liu et al., ICML 2024, arXiv 2402.09353): `W' = m (W + s B A) / ||W + s B A||`, by outputs.

The direction's `B` is projected like any other. The magnitude `m` `(d_out,)` is no product of
matrices; where a module's direction is replaced it goes back to `||W_chat||`.
"""

import torch
from torch import Tensor

from app.alignment.difference import BLOCK_ELEMENTS, StoredWeight


def weight_norms(weight: StoredWeight, *, transposed: bool) -> Tensor:
    """The norm of each output's row of `W`, `(d_out,)` float64.

    `transposed`: the weight is stored `(d_in, d_out)`, as of a `Conv1D` or an embedding.
    """
    rows, columns = weight.shape
    size = max(1, BLOCK_ELEMENTS // columns)
    squares = torch.zeros(columns if transposed else rows, dtype=torch.float64)
    for begin in range(0, rows, size):
        block = weight.rows(begin, min(rows, begin + size)).double()
        if transposed:
            squares += block.square().sum(0)
        else:
            squares[begin : begin + len(block)] = block.square().sum(1)
    return squares.sqrt()
