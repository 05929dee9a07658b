"""`A0`, `B0`, the export and its recompression, each against its formula in float64."""

import pytest
import torch
from torch import Tensor

from app.alignment.leading import orthonormal
from app.alignment.salora_start import (
    Factors,
    complement,
    exported,
    recompressed,
    start,
    zero_start,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decaying(d_out: int, d_in: int) -> Tensor:
    """A weight whose singular values lie apart."""
    k = min(d_out, d_in)
    u, z = (orthonormal(random(d, k, seed=d).double()) for d in (d_out, d_in))
    return ((u * 0.8 ** torch.arange(k, dtype=torch.float64)) @ z.T).float()


@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (560, 96), (96, 560)])
def test_the_start_is_the_truncated_svd_projected_on_the_task(shape: tuple[int, int]) -> None:
    w, v_t = decaying(*shape), orthonormal(random(shape[0], 5))
    u, s, zh = torch.linalg.svd(w.double(), full_matrices=False)
    root = s[:4].sqrt()
    b0, a0 = v_t.double() @ (v_t.double().T @ (u[:, :4] * root)), (zh[:4].T * root).T
    found = start(w, 4, v_t)
    assert (found.a.shape, found.b.shape) == ((4, shape[1]), (shape[0], 4))
    # the product, because the signs of single vectors are open; 1e-5: float32's rounding
    assert torch.allclose(found.b.double() @ found.a.double(), b0 @ a0, atol=1e-5)
    assert torch.allclose(found.a.double().abs(), a0.abs(), atol=1e-5)
    assert torch.allclose(found.b.double().abs(), b0.abs(), atol=1e-5)


def test_without_task_data_the_projection_is_left_out() -> None:
    w = decaying(48, 32)
    u, s, zh = torch.linalg.svd(w.double(), full_matrices=False)
    found = start(w, 4, None)
    assert torch.allclose(
        found.b.double() @ found.a.double(), (u[:, :4] * s[:4]) @ zh[:4], atol=1e-5
    )


def test_a_weight_of_less_rank_than_asked_for_gives_no_nan() -> None:
    found = start(random(20, 2) @ random(2, 30), 4, None)
    assert torch.isfinite(found.a).all()
    assert torch.isfinite(found.b).all()


def test_the_zero_start_is_the_same_for_the_same_seed() -> None:
    one, two, other = (zero_start(torch.empty(6, 5), 3, seed) for seed in (1, 1, 2))
    assert torch.equal(one.a, two.a)
    assert not torch.equal(one.a, other.a)
    assert not one.b.any()
    assert one.a.abs().max() <= 5**-0.5


def test_the_complement_is_symmetric_and_idempotent_and_kills_the_safety_directions() -> None:
    v = orthonormal(random(40, 6).double())
    c = complement(v, torch.eye(40))
    assert torch.allclose(c, torch.eye(40).double() - v @ v.T, atol=1e-14)
    assert torch.allclose(c, c.T, atol=1e-14)
    assert torch.allclose(c @ c, c, atol=1e-14)
    assert torch.allclose(v.T @ c, torch.zeros(6, 40).double(), atol=1e-14)


def test_the_export_is_the_trained_update_and_moves_nothing_along_the_safety_directions() -> None:
    w, v = decaying(48, 32), orthonormal(random(48, 6))
    begin = start(w, 4, None)
    a, b = random(4, 32, seed=1), random(48, 4, seed=2)
    c = torch.eye(48).double() - v.double() @ v.double().T
    wanted = c @ (b.double() @ a.double() - begin.b.double() @ begin.a.double())
    found = exported(a, b, begin, v)
    assert (found.a.shape, found.b.shape) == ((8, 32), (48, 8))
    assert torch.allclose(found.b @ found.a, wanted, atol=1e-12)
    assert (v.double().T @ found.b).abs().max() < 1e-6 * found.b.abs().max()


def test_the_export_of_a_zero_start_keeps_the_rank() -> None:
    a, b, v = random(4, 32, seed=1), random(48, 4, seed=2), orthonormal(random(48, 6))
    found = exported(a, b, None, v)
    assert (found.a.shape, found.b.shape) == ((4, 32), (48, 4))


@pytest.mark.parametrize("rank", [1, 3, 8, 12])
def test_recompression_is_the_best_of_its_rank_and_says_what_it_lost(rank: int) -> None:
    given = Factors(random(8, 32, seed=5).double(), random(48, 8, seed=6).double())
    dense = given.b @ given.a
    u, s, zh = torch.linalg.svd(dense)
    best = (u[:, :rank] * s[:rank]) @ zh[:rank] if rank < 32 else dense
    found, error = recompressed(given, rank)
    assert found.a.shape[0] == min(rank, 8)
    assert torch.allclose(found.b @ found.a, best, atol=1e-10)
    lost = torch.linalg.norm(dense - found.b @ found.a) / torch.linalg.norm(dense)
    assert error == pytest.approx(float(lost), abs=1e-10)


def test_recompression_stays_out_of_the_safety_directions() -> None:
    v = orthonormal(random(48, 6))
    given = exported(random(4, 32, seed=1), random(48, 4, seed=2), None, v)
    found, _ = recompressed(given, 2)
    assert (v.double().T @ found.b).abs().max() < 1e-6


def test_an_update_of_zero_loses_nothing() -> None:
    assert recompressed(Factors(torch.zeros(4, 8), torch.zeros(6, 4)), 2)[1] == 0.0
