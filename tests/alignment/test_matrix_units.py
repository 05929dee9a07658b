import logging

import pytest
import torch
from torch import Tensor

from app.alignment import matrix_units
from app.alignment.matrix_units import GOOD, Gemm, bf16_gemm, joined, parts
from tests.alignment import units

SHAPES = [(1, 1, 1), (1, 7, 3), (5, 1, 2), (3, 4, 1), (64, 33, 24), (300, 700, 48)]


@pytest.fixture
def real() -> Gemm:
    found = bf16_gemm()
    if found is None:
        pytest.skip("this processor, or this torch, has no bfloat16 units to use")
    return found


def numbers(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_the_parts_of_a_float32_number_sum_up_to_it() -> None:
    x = numbers(100, 7) * torch.logspace(-12, 12, 7)
    cut = parts(x)
    assert cut.dtype == torch.bfloat16
    assert torch.equal(joined(cut.double()), x.double())


@pytest.mark.parametrize("order", ["plain", "left transposed", "right transposed", "both"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_processors_product_is_summed_in_float32(
    real: Gemm, shape: tuple[int, int, int], order: str
) -> None:
    """Within 1e-6 of float64, wherever the matrices lie and whatever was in the result."""
    m, k, n = shape
    a, b = numbers(m, k).bfloat16(), numbers(k, n, seed=1).bfloat16()
    left = a.T.contiguous().T if order in ("left transposed", "both") else a
    right = b.T.contiguous().T if order in ("right transposed", "both") else b
    out = torch.full((m, n), torch.nan)
    real(left, right, out)
    exact = a.double() @ b.double()
    assert torch.linalg.norm(out - exact) <= 1e-6 * torch.linalg.norm(exact)
    real(left, right, out, add=True)
    assert torch.linalg.norm(out - 2 * exact) <= 1e-6 * torch.linalg.norm(2 * exact)


def test_rows_and_columns_of_a_larger_matrix_are_multiplied_where_they_lie(real: Gemm) -> None:
    a, b = numbers(40, 64).bfloat16(), numbers(64, 12, seed=1).bfloat16()
    out = torch.zeros(40, 12)
    real(a[8:24, 16:48], b[16:48], out[8:24])
    expected = torch.zeros(40, 12, dtype=torch.float64)
    expected[8:24] = a[8:24, 16:48].double() @ b[16:48].double()
    assert torch.linalg.norm(out - expected) <= 1e-6 * torch.linalg.norm(expected)


def test_the_stand_in_of_the_tests_does_what_the_processor_does(real: Gemm) -> None:
    a, b = numbers(33, 70).bfloat16(), numbers(70, 9, seed=1).bfloat16()
    ours, theirs = torch.ones(33, 9), torch.ones(33, 9)
    real(a, b, ours, add=True)
    units.gemm(a, b, theirs, add=True)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_product_that_is_off_is_never_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def rounding(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
        units.gemm(a, b, out, add=add)
        out *= 1 + 4 * GOOD

    monkeypatch.setattr(matrix_units, "_has_units", lambda: True)
    monkeypatch.setattr(matrix_units, "_of_mkl", lambda: rounding)
    with caplog.at_level(logging.WARNING):
        assert bf16_gemm.__wrapped__() is None
    assert "no usable product" in caplog.text


@pytest.mark.parametrize("missing", ["the function", "the library"])
def test_without_the_function_torch_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    found = None if missing == "the library" else object()
    monkeypatch.setattr(matrix_units, "_has_units", lambda: True)
    monkeypatch.setattr(matrix_units, "_library", lambda: found)
    assert bf16_gemm.__wrapped__() is None


def test_a_processor_without_the_units_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})
    monkeypatch.setattr(matrix_units, "_of_mkl", lambda: pytest.fail("it was asked"))
    assert bf16_gemm.__wrapped__() is None
