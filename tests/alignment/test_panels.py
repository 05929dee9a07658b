import math

import pytest
import torch
from torch import Tensor

from app.alignment.approximate import apply_approximate, apply_rows
from app.alignment.blocks import Scratch
from app.alignment.difference import Difference, SquaredNorm, TensorWeight
from app.alignment.panel_products import PLAIN_EXPONENT, apply_panels
from app.alignment.panels import LEAST_WIDTH, NEARLY_EXACT, add_squares, hold, layout_of
from tests.alignment import units

SHAPES = [(64, 64), (96, 40), (40, 96), (1, 16), (16, 1), (700, 1531), (70_000, 19)]


def difference(
    d_out: int,
    d_in: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    transposed: bool = False,
    share: float = 0.05,
) -> tuple[Difference, Tensor]:
    """A difference, and `V` `(d_out, d_in)` in float64 as the formula has it."""
    generator = torch.Generator().manual_seed(0)
    shape = (d_in, d_out) if transposed else (d_out, d_in)
    base = torch.randn(shape, generator=generator).to(dtype)
    chat = (base.float() + share * torch.randn(shape, generator=generator)).to(dtype)
    v = chat.double() - base.double()
    weights = (TensorWeight("chat", chat), TensorWeight("base", base))
    return Difference(*weights, transposed), v.T if transposed else v


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_panels_side_by_side_are_the_difference(
    shape: tuple[int, int], transposed: bool
) -> None:
    v, exact = difference(*shape, transposed=transposed)
    panels = hold(v, Scratch()).panels
    columns = [panels.layout.columns(panel) for panel in panels.tensor]
    side_by_side = torch.cat(columns, dim=1)
    assert torch.equal(side_by_side[:, : shape[1]], exact.to(torch.bfloat16))
    assert not side_by_side[:, shape[1] :].any()


def tolerance(d_out: int) -> float:
    """Some BLAS sum d_out float32 terms one after the other: rounding grows with their root."""
    return 2e-6 * max(1.0, (d_out / 4096) ** 0.5)


@pytest.mark.parametrize("way", units.WAYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_panels_give_the_product_and_the_norm_of_the_dense_formula(
    shape: tuple[int, int],
    transposed: bool,
    dtype: torch.dtype,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units.use(way, monkeypatch)
    v, exact = difference(*shape, dtype, transposed=transposed)
    exact = exact.to(dtype).double()  # as it is kept
    b = torch.randn(shape[0], 5, generator=torch.Generator().manual_seed(1))
    squares = SquaredNorm()
    product = apply_panels(hold(v, Scratch()).panels, b, Scratch(), squares)
    expected = exact @ (exact.T @ b.double())
    error = torch.linalg.norm(product - expected)
    assert error < tolerance(shape[0]) * torch.linalg.norm(expected)
    assert squares.value == pytest.approx(float(exact.square().sum()), rel=1e-7)


@pytest.mark.parametrize("way", units.WAYS)
@pytest.mark.parametrize("columns", [0, 15, 16, 65, 128, 300])
@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("shape", [(700, 1531), (701, 40)], ids=str)
def test_the_columns_of_many_adapters_go_together(
    shape: tuple[int, int],
    transposed: bool,
    columns: int,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units.use(way, monkeypatch)
    v, exact = difference(*shape, transposed=transposed)
    exact, squares = exact.bfloat16().double(), SquaredNorm()
    b = torch.randn(shape[0], columns)
    product = apply_panels(hold(v, Scratch()).panels, b, Scratch(), squares)
    expected = exact @ (exact.T @ b.double())
    assert product.shape == expected.shape
    assert squares.value == pytest.approx(float(exact.square().sum()), rel=1e-7)
    assert torch.linalg.norm(product - expected) <= 2e-6 * torch.linalg.norm(expected)


@pytest.mark.parametrize("way", units.WAYS)
@pytest.mark.parametrize("exponent", [-110, -PLAIN_EXPONENT - 1, 0, PLAIN_EXPONENT + 1, 110])
def test_an_adapter_of_any_size_keeps_its_digits(
    exponent: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the last of three parts alone would be too small for a bfloat16 number."""
    units.use(way, monkeypatch)
    v, exact = difference(96, 40)
    exact = exact.bfloat16().double()
    b = torch.randn(96, 3) * 2.0**exponent
    product = apply_panels(hold(v, Scratch()).panels, b, Scratch())
    expected = exact @ (exact.T @ b.double())
    assert torch.linalg.norm(product.double() - expected) < 2e-6 * torch.linalg.norm(expected)


def test_a_difference_with_nan_has_a_norm_that_is_not_finite() -> None:
    v, _ = difference(96, 40)
    assert isinstance(v.chat, TensorWeight)
    v.chat.tensor[3, 3] = torch.nan
    squares = SquaredNorm()
    add_squares(hold(v, Scratch()).panels.tensor, squares, Scratch())
    assert not math.isfinite(squares.value)


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
def test_scratch_memory_of_an_earlier_module_leaves_no_trace(transposed: bool) -> None:
    scratch = Scratch()
    hold(difference(64, 64)[0], scratch).panels.tensor.fill_(torch.nan)
    v, exact = difference(48, LEAST_WIDTH + 3, transposed=transposed)
    b = torch.ones(48, 1)
    product = apply_panels(hold(v, scratch).panels, b, scratch)
    rounded = exact.to(torch.bfloat16).double()
    assert torch.allclose(product.double(), rounded @ (rounded.T @ b.double()), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_rounding_is_what_was_lost(dtype: torch.dtype) -> None:
    v, exact = difference(96, 512, dtype, share=0.1)
    panels, rounding = hold(v, Scratch())
    lost = exact - exact.to(dtype).double()
    assert panels.dtype == dtype
    assert rounding > 0
    assert rounding == pytest.approx(float(torch.linalg.norm(lost) / torch.linalg.norm(exact)))


def test_weights_within_a_factor_of_two_of_each_other_lose_nothing() -> None:
    """Sterbenz's lemma."""
    base = (1 + torch.rand(64, 64, generator=torch.Generator().manual_seed(2))).bfloat16()
    chat = (base * 1.5).bfloat16()
    v = Difference(TensorWeight("chat", chat), TensorWeight("base", base))
    assert hold(v, Scratch()).rounding == 0


def test_where_rounding_would_lose_more_the_difference_is_kept_in_float32() -> None:
    v, exact = difference(64, 512, share=3.0)  # two models that have little in common
    panels, rounding = hold(v, Scratch())
    assert panels.dtype == torch.float32
    assert rounding <= NEARLY_EXACT
    assert torch.equal(panels.tensor[0], exact.float())


def test_two_dtypes_are_kept_in_what_holds_both() -> None:
    base = torch.randn(32, 32).bfloat16()
    chat = (base.float() * 1.01).half()
    panels, rounding = hold(
        Difference(TensorWeight("chat", chat), TensorWeight("base", base)), Scratch()
    )
    assert panels.dtype == torch.float32
    assert rounding < 1e-7


def test_float64_checkpoints_are_computed_with_in_float64() -> None:
    v, exact = difference(40, 30, torch.float64)
    b = torch.randn(40, 3)
    product = apply_panels(hold(v, Scratch()).panels, b, Scratch())
    expected = exact @ (exact.T @ b.double())
    assert product.dtype == torch.float64
    assert torch.linalg.norm(product - expected) < 1e-14 * torch.linalg.norm(expected)


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
def test_a_difference_too_large_to_be_held_gives_the_same(
    transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    v, _ = difference(700, 1531, torch.float32, transposed=transposed)
    b = torch.randn(700, 4)
    held, norm = apply_approximate(v, b, Scratch())
    monkeypatch.setattr("app.alignment.approximate.HELD_BYTES", 0)
    streamed, same = apply_approximate(v, b, Scratch())
    assert torch.linalg.norm(streamed - held) < 2e-6 * torch.linalg.norm(held)
    assert same == pytest.approx(norm, rel=1e-7)
    assert apply_rows(v, b)[1] == pytest.approx(same**2, rel=1e-14)


def test_the_layout_depends_on_the_shape_alone() -> None:
    assert layout_of(difference(4096, 64)[0]) == layout_of(difference(4096, 64, torch.float32)[0])
