import pytest
import torch

from app.alignment.lora import LoraPair
from app.alignment.projection import Projected
from app.alignment.replacement import distance_figure, replacement
from app.domain.method import Method
from tests.alignment.test_projection import difference, pair, projected, weights


@pytest.fixture
def found() -> tuple[LoraPair, Projected]:
    lora = pair(64, 32)
    return lora, projected(lora, difference(*weights(64, 32)), Method())


def test_safe_lora_gives_c_b(found: tuple[LoraPair, Projected]) -> None:
    assert torch.equal(replacement(*found, Method()), found[1].c_b)


def test_preserve_norm_keeps_the_updates_norm_and_the_projections_direction(
    found: tuple[LoraPair, Projected],
) -> None:
    lora, module = found
    final = replacement(lora, module, Method(rescale="preserve_norm")).double()
    norm = torch.linalg.matrix_norm
    a = lora.a.double()
    assert float(norm(final @ a)) == pytest.approx(float(norm(lora.b.double() @ a)), rel=1e-6)
    scale = float(norm(final) / norm(module.c_b.double()))
    assert torch.allclose(final, scale * module.c_b.double(), rtol=1e-5)


def test_the_baselines_scale_and_remove(found: tuple[LoraPair, Projected]) -> None:
    lora, module = found
    assert torch.equal(replacement(lora, module, Method(name="scale", factor=0.25)), lora.b * 0.25)
    assert torch.count_nonzero(replacement(lora, module, Method(name="prune"))) == 0


def test_nothing_is_rescaled_where_nothing_is_left() -> None:
    chat, base = torch.zeros(6, 4), torch.zeros(6, 4)
    chat[:2] = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    b = torch.zeros(6, 2)
    b[4:] = 1.0
    lora = LoraPair(torch.eye(2, 4), b, 1.0)
    module = projected(lora, difference(chat, base), Method())
    final = replacement(lora, module, Method(rescale="preserve_norm"))
    assert torch.count_nonzero(final) == 0


def test_the_distance_figure_is_one_at_c_b_and_less_elsewhere(
    found: tuple[LoraPair, Projected],
) -> None:
    lora, module = found
    assert distance_figure(module.c_b, module.c_b) == 1.0
    assert distance_figure(lora.b, module.c_b) == pytest.approx(module.measures.pdst_kept)
