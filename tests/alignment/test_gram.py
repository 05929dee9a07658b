import pytest
import torch

from app.alignment.blocks import Scratch
from app.alignment.gram import MOST_TILE, Tiling, apply_gram, gram
from app.alignment.panels import hold
from tests.alignment import units
from tests.alignment.test_panels import difference

SHAPES = [(1, 16), (40, 200), (512, 512), (513, 700), (1100, 1531)]
TOLERANCE = 2e-6  # relative, against float64


@pytest.mark.parametrize("way", units.WAYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_tiles_give_the_product_of_the_dense_formula(
    shape: tuple[int, int],
    transposed: bool,
    dtype: torch.dtype,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units.use(way, monkeypatch)
    v, exact = difference(*shape, dtype, transposed=transposed)
    exact = exact.to(dtype).double()  # as it is kept
    tiles = gram(hold(v, Scratch()).panels, Scratch())
    b = torch.randn(shape[0], 5, generator=torch.Generator().manual_seed(1))
    expected = exact @ (exact.T @ b.double())
    error = torch.linalg.norm(apply_gram(tiles, b) - expected)
    assert error <= TOLERANCE * torch.linalg.norm(expected)


@pytest.mark.parametrize("d_out", [1, 15, 16, 40, 512, 513, 1024, 4096, 5120, 11008])
def test_the_tiling_covers_every_row_and_wastes_little(d_out: int) -> None:
    tiling = Tiling(d_out)
    spans = [tiling.span(i) for i in range(tiling.across)]
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(d_out))
    assert tiling.rows <= MOST_TILE
    assert 0 <= tiling.across * tiling.rows - d_out < 16 * tiling.across
    assert tiling.size_bytes == torch.zeros(tiling.shape, device="meta").nbytes


def test_many_columns_are_many_adapters_side_by_side() -> None:
    v, _ = difference(600, 700)
    tiles = gram(hold(v, Scratch()).panels, Scratch())
    b = torch.randn(600, 96)
    alone = torch.cat([apply_gram(tiles, some) for some in torch.split(b, 8, dim=1)], dim=1)
    together = apply_gram(tiles, b)
    assert torch.linalg.norm(together - alone) <= 1e-6 * torch.linalg.norm(alone)


def test_tiles_that_are_cut_otherwise_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 64, 64\), not \(1, 48, 48\)"):
        apply_gram(torch.zeros(1, 64, 64), torch.zeros(40, 2))
