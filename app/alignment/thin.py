"""numpy's products of a large matrix with a few columns.

OpenBLAS has kernels for small products that need not copy the matrix into their own order first
(with AVX-512). For eight columns they take less than half the time; so the rows go in pieces that
are small enough for them. Pieces or not, the product is as exact as float32 is.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.alignment.blocks import Scratch

Matrix = NDArray[Any]  # float32 or float64

SMALL = 10**6  # multiplications, up to which OpenBLAS takes these kernels
FEWEST_ROWS = 48  # of a piece; fewer gain nothing


def times(v: Matrix, t: Matrix, scratch: Scratch) -> Matrix:
    """`v @ t` for `v` `(rows, width)` and `t` `(width, n)`; in the scratch memory."""
    kind = torch.float64 if v.dtype == np.float64 else torch.float32
    out = scratch.take("product", (len(v), t.shape[1]), kind).numpy()
    rows = _rows_at_once(v, t)
    (pieces, rest), (out_pieces, out_rest) = _cut(v, rows), _cut(out, rows)
    np.matmul(pieces, t, out=out_pieces)
    np.matmul(rest, t, out=out_rest)
    return out


def transposed_times(v: Matrix, b: Matrix) -> Matrix:
    """`v.T @ b` for `v` `(rows, width)` and `b` `(rows, n)`."""
    rows = _rows_at_once(v, b)
    (pieces, rest), (b_pieces, b_rest) = _cut(v, rows), _cut(b, rows)
    total: Matrix = (pieces.transpose(0, 2, 1) @ b_pieces).sum(0)
    total += rest.T @ b_rest
    return total


def _rows_at_once(v: Matrix, thin: Matrix) -> int:
    rows = SMALL // max(1, v.shape[1] * thin.shape[1])
    return rows if FEWEST_ROWS <= rows < len(v) else max(1, len(v))


def _cut(matrix: Matrix, rows: int) -> tuple[Matrix, Matrix]:
    """A view of it as `(pieces, rows, columns)`, and the rows that are left."""
    pieces = len(matrix) // rows
    whole = matrix[: pieces * rows].reshape(pieces, rows, matrix.shape[1])
    return whole, matrix[pieces * rows :]
