import numpy as np
import pytest

from app.alignment.blocks import Scratch
from app.alignment.thin import FEWEST_ROWS, SMALL, Matrix, times, transposed_times

TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # relative, against float64
SHAPES = [(1, 1, 1), (48, 40, 3), (4096, 256, 8), (3671, 256, 8), (512, 512, 7), (700, 256, 64)]


def matrices(rows: int, width: int, n: int, dtype: str, *, turned: bool) -> tuple[Matrix, ...]:
    """`v`, which may lie in memory by columns, and the thin ones on its either side."""
    generator = np.random.default_rng(0)
    v, t, b = (generator.standard_normal(s) for s in ((rows, width), (width, n), (rows, n)))
    v = np.ascontiguousarray(v.T).T if turned else v
    return v.astype(dtype), t.astype(dtype), b.astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("turned", [False, True], ids=["by rows", "by columns"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_products_are_those_of_float64(
    shape: tuple[int, int, int], turned: bool, dtype: str
) -> None:
    v, t, b = matrices(*shape, dtype, turned=turned)
    exact = v.astype("float64")
    for found, expected in (
        (times(v, t, Scratch()), exact @ t.astype("float64")),
        (transposed_times(v, b), exact.T @ b.astype("float64")),
    ):
        assert found.dtype == v.dtype
        error = np.linalg.norm(found - expected)
        assert error <= TOLERANCE[dtype] * np.linalg.norm(expected)


@pytest.mark.parametrize("n", [0, 1, 8])
def test_no_rows_and_no_columns_give_nothing_and_zeros(n: int) -> None:
    v, t, b = matrices(0, 5, n, "float32", turned=False)
    assert times(v, t, Scratch()).shape == (0, n)
    assert not transposed_times(v, b).any()
    assert transposed_times(v, b).shape == (5, n)


def test_the_shapes_above_are_cut_into_pieces_and_have_rows_left_over() -> None:
    rows, width, n = SHAPES[3]
    at_once = SMALL // (width * n)
    assert FEWEST_ROWS <= at_once < rows
    assert rows % at_once
