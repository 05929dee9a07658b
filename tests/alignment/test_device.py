import pytest
import torch
from torch import Tensor

from app.alignment.approximate import apply_approximate
from app.alignment.blocks import Scratch
from app.alignment.device import DeviceCache, DeviceGram, DeviceV
from app.alignment.difference import Difference, TensorWeight
from app.alignment.gram import gram
from app.alignment.panels import HeldPanels, hold

CPU = torch.device("cpu")


def difference(d_out: int, d_in: int, *, transposed: bool = False, seed: int = 0) -> Difference:
    generator = torch.Generator().manual_seed(seed)
    shape = (d_in, d_out) if transposed else (d_out, d_in)
    base = torch.randn(shape, generator=generator)
    chat = base + 0.05 * torch.randn(shape, generator=generator)
    return Difference(
        TensorWeight("c", chat.bfloat16()), TensorWeight("b", base.bfloat16()), transposed
    )


def held(v: Difference) -> HeldPanels:
    return hold(v, Scratch()).panels


@pytest.fixture(params=[CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)], ids=str)
def device(request: pytest.FixtureRequest) -> torch.device:
    return request.param


@pytest.mark.parametrize("form", ["panels", "gram"])
@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("shape", [(64, 64), (96, 40), (700, 1531)], ids=str)
def test_a_device_gives_what_the_cpu_gives(
    shape: tuple[int, int], transposed: bool, form: str, device: torch.device
) -> None:
    v = difference(*shape, transposed=transposed)
    columns = torch.randn(shape[0], 5, generator=torch.Generator().manual_seed(1))
    expected, norm = apply_approximate(v, columns, Scratch())
    cache = DeviceCache(device, 1 << 30)
    panels = held(v)
    tiles = DeviceGram(gram(panels, Scratch()), norm)
    cache.keep("v", tiles if form == "gram" else DeviceV(panels.layout, panels.tensor, norm))
    kept = cache.find("v")
    assert kept is not None
    applied = kept.apply(columns)
    assert (applied.alignment_norm, applied.source) == (norm, "memory")
    assert applied.product.device == CPU
    assert torch.linalg.norm(applied.product - expected) < 2e-6 * torch.linalg.norm(expected)


def test_chunks_of_panels_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.alignment.panels.PANEL_ELEMENTS", 1 << 12)
    monkeypatch.setattr("app.alignment.panels.LEAST_WIDTH", 32)
    v = difference(96, 300)
    columns = torch.ones(96, 2)
    cache, panels = DeviceCache(CPU, 1 << 30), held(v)
    cache.keep("v", DeviceV(panels.layout, panels.tensor, 1.0))
    whole = apply(cache, columns)
    monkeypatch.setattr("app.alignment.device.CHUNK_BYTES", 1)
    assert torch.allclose(apply(cache, columns), whole, rtol=1e-5)


def apply(cache: DeviceCache, columns: Tensor) -> Tensor:
    kept = cache.find("v")
    assert kept is not None
    return kept.apply(columns).product


def test_the_least_recently_used_makes_room() -> None:
    panels = [held(difference(64, 64, seed=seed)) for seed in range(4)]
    size = panels[0].tensor.nbytes
    cache = DeviceCache(CPU, 2 * size + 1)
    for i in (0, 1):
        cache.keep(i, DeviceV(panels[i].layout, panels[i].tensor, 1.0))
    assert cache.find(0)
    cache.keep(2, DeviceV(panels[2].layout, panels[2].tensor, 1.0))
    assert [bool(cache.find(i)) for i in range(3)] == [True, False, True]
    assert cache.size_bytes == 2 * size


def test_what_is_larger_than_the_limit_is_not_kept() -> None:
    panels = held(difference(64, 64))
    cache = DeviceCache(CPU, panels.tensor.nbytes - 1)
    cache.keep("v", DeviceV(panels.layout, panels.tensor, 1.0))
    assert cache.find("v") is None
    assert cache.size_bytes == 0


def test_what_is_kept_does_not_change_with_the_memory_it_came_from() -> None:
    scratch = Scratch()
    first = hold(difference(64, 64), scratch).panels
    cache = DeviceCache(CPU, 1 << 30)
    cache.keep("v", DeviceV(first.layout, first.tensor, 1.0))
    before = apply(cache, torch.ones(64, 1))
    hold(difference(64, 64, seed=1), scratch)  # uses the same memory again
    assert torch.equal(apply(cache, torch.ones(64, 1)), before)
