import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from app.alignment import numpy_products
from app.alignment.blocks import Scratch, torch_threads
from app.alignment.difference import SquaredNorm
from app.alignment.gram import Tiling, gram
from app.alignment.numpy_products import MOST_COLUMNS, SHARES, InMemory
from app.alignment.panels import PANEL_ELEMENTS, hold
from tests.alignment.test_panels import difference

TOLERANCE = 2e-6  # relative, against float64

Apply = Callable[[int, Tensor], Tensor]


def of_panels(
    d_out: int, d_in: int, dtype: torch.dtype = torch.bfloat16, *, transposed: bool = False
) -> tuple[Apply, Tensor]:
    v, exact = difference(d_out, d_in, dtype, transposed=transposed)
    panels = hold(v, Scratch()).panels
    exact = exact.to(dtype).double()

    def apply(threads: int, b: Tensor) -> Tensor:
        with torch_threads(threads):
            chunks = InMemory(panels.tensor)
            return numpy_products.apply_panels(panels.layout, chunks, b, Scratch())

    return apply, exact


def of_tiles(d_out: int, d_in: int) -> tuple[Apply, Tensor]:
    v, exact = difference(d_out, d_in)
    tiles = InMemory(gram(hold(v, Scratch()).panels, Scratch()))
    exact = exact.bfloat16().double()

    def apply(threads: int, b: Tensor) -> Tensor:
        with torch_threads(threads):
            return numpy_products.apply_gram(Tiling(d_out), tiles, b, Scratch())

    return apply, exact


KINDS = {
    "panels": lambda: of_panels(300, 2700),
    "more panels than shares": lambda: of_panels(4001, 4200),
    "few panels": lambda: of_panels(300, 40),
    "panels by columns": lambda: of_panels(300, 2700, transposed=True),
    "panels that are too tall to be widened at once": lambda: of_panels(9001, 300),
    "tall panels by columns": lambda: of_panels(9001, 300, transposed=True),
    "panels in float16": lambda: of_panels(300, 2700, torch.float16),
    "panels in float32": lambda: of_panels(300, 2700, torch.float32),
    "panels in float64": lambda: of_panels(300, 2700, torch.float64),
    "tiles": lambda: of_tiles(1100, 1200),
    "one tile": lambda: of_tiles(40, 80),
}


def test_the_tall_ones_are_widened_in_several_blocks() -> None:
    assert 2 * PANEL_ELEMENTS < 9001 * 256


@pytest.mark.parametrize("columns", [0, 1, 8, MOST_COLUMNS, MOST_COLUMNS + 9])
@pytest.mark.parametrize("kind", KINDS)
def test_the_product_is_that_of_the_dense_formula_and_the_same_bits_with_any_threads(
    kind: str, columns: int
) -> None:
    apply, exact = KINDS[kind]()
    b = torch.randn(len(exact), columns, generator=torch.Generator().manual_seed(1))
    first, *others = [apply(threads, b) for threads in (1, 2, 3)]
    expected = exact @ (exact.T @ b.double())
    assert first.shape == expected.shape
    tall = max(1.0, (len(exact) / 4096) ** 0.5)
    tolerance = 1e-14 if first.dtype == torch.float64 else TOLERANCE * tall
    assert torch.linalg.norm(first - expected) <= tolerance * torch.linalg.norm(expected)
    assert all(torch.equal(first, other) for other in others)


def test_columns_of_very_many_rows_go_in_smaller_lots_and_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apply, _ = of_panels(4001, 300)
    b = torch.randn(4001, 24)
    at_once = apply(2, b)
    monkeypatch.setattr(numpy_products, "SUMS_BYTES", 7 * SHARES * 4001 * 4)
    lots = numpy_products._columns_at_once(b)
    assert [lot.shape[1] for lot in lots] == [7, 7, 7, 3]
    found = apply(2, b)
    assert torch.linalg.norm(found - at_once) <= 1e-6 * torch.linalg.norm(at_once)


@pytest.mark.parametrize("shape", [(300, 2700), (9001, 300)], ids=str)
def test_the_norm_is_taken_once_however_many_columns_there_are(shape: tuple[int, int]) -> None:
    v, exact = difference(*shape)
    panels, squares = hold(v, Scratch()).panels, SquaredNorm()
    b = torch.randn(shape[0], 2 * MOST_COLUMNS)
    chunks = InMemory(panels.tensor)
    numpy_products.apply_panels(panels.layout, chunks, b, Scratch(), squares)
    expected = float(exact.bfloat16().double().square().sum())
    assert squares.value == pytest.approx(expected, rel=1e-7)


def test_infinities_show_in_the_norm_and_warn_nobody() -> None:
    v, _ = difference(96, 40)
    panels, squares = hold(v, Scratch()).panels, SquaredNorm()
    panels.tensor[0, 3, :2] = torch.tensor([torch.inf, torch.nan])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunks = InMemory(panels.tensor)
        numpy_products.apply_panels(panels.layout, chunks, torch.randn(96, 2), Scratch(), squares)
    assert not squares.value < torch.inf


@dataclass(frozen=True)
class Broken(InMemory):
    at: int = 0

    def take(self, i: int, scratch: Scratch) -> Tensor:
        if i == self.at:
            raise ValueError(f"chunk {i} is damaged")
        return super().take(i, scratch)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("at", [0, SHARES])
def test_a_damaged_chunk_gives_no_product(at: int, threads: int) -> None:
    panels = hold(difference(4001, 4200)[0], Scratch()).panels
    chunks = Broken(panels.tensor, at=at)
    assert chunks.count > SHARES
    with torch_threads(threads), pytest.raises(ValueError, match=f"chunk {at} is damaged"):
        numpy_products.apply_panels(panels.layout, chunks, torch.randn(4001, 2), Scratch())


def test_memory_that_was_used_before_leaves_no_trace() -> None:
    scratch, kept = Scratch(), hold(difference(300, 2700)[0], Scratch()).panels
    chunks, b = InMemory(kept.tensor), torch.randn(300, 3)
    clean = numpy_products.apply_panels(kept.layout, chunks, b, Scratch())
    broken = InMemory(torch.full_like(kept.tensor, torch.nan))
    numpy_products.apply_panels(kept.layout, broken, b, scratch)
    assert torch.equal(numpy_products.apply_panels(kept.layout, chunks, b, scratch), clean)
