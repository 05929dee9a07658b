"""`V_s` from sums, against the SVD of all outputs in float64."""

import pytest
import torch
from torch import Tensor

from app.alignment.moments import SecondMoment, Sketch
from tests.alignment.test_leading import angle

CPU = torch.device("cpu")


def activations(n: int, d_in: int, decay: float) -> Tensor:
    """Inputs of a decaying spectrum around a mean that is not zero, float32."""
    generator = torch.Generator().manual_seed(3)
    scale = decay ** torch.arange(d_in, dtype=torch.float64)
    wide = torch.randn(n, d_in, dtype=torch.float64, generator=generator) * scale
    return (wide + 0.5 * scale).float()


def weight(d_out: int, d_in: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(d_out, d_in, generator=generator).to(dtype)


def reference(x: Tensor, w: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """From the formula: `Y = X W^T`, its SVD."""
    y = x.double() @ w.double().T
    _, values, right = torch.linalg.svd(y, full_matrices=False)
    energy = float(values[:rank].square().sum() / values.square().sum())
    return right[:rank].T, values[:rank], energy


@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (640, 96), (96, 640), (700, 700)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_second_moments_give_the_singular_vectors_of_all_outputs(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    w, x = weight(*shape, dtype), activations(2000, shape[1], 0.9)
    wanted, values, energy = reference(x, w, 6)
    kept = None if shape[1] <= shape[0] else w
    moment = SecondMoment(min(shape), CPU, kept)
    for part in x.split(300):
        moment.add(part)
    found = moment.subspace(w, 6)
    assert found.rows == 2000
    assert angle(found.basis, wanted) < 1e-5  # float32's rounding of the basis, and of `X W^T`
    assert torch.allclose(found.values.double(), values, rtol=1e-5)
    assert found.energy == pytest.approx(energy, rel=1e-6)


def test_what_is_added_in_parts_is_what_is_added_at_once() -> None:
    w, x = weight(64, 40), activations(500, 40, 0.9)
    parts, whole = SecondMoment(40, CPU), SecondMoment(40, CPU)
    whole.add(x)
    for part in x.split(7):
        parts.add(part)
    assert angle(parts.subspace(w, 5).basis, whole.subspace(w, 5).basis) < 1e-6


def test_more_can_be_added_after_a_subspace_was_asked_for() -> None:
    w, x = weight(64, 41), activations(500, 41, 0.9)  # 41: no multiple of the strips' number
    asked, plain = SecondMoment(41, CPU), SecondMoment(41, CPU)
    for part in x.split(250):
        asked.add(part)
        asked.subspace(w, 5)
        plain.add(part)
    assert torch.equal(asked.subspace(w, 5).basis, plain.subspace(w, 5).basis)


@pytest.mark.parametrize(("decay", "tolerance"), [(0.8, 1e-5), (0.97, 0.02)])
def test_a_sketch_is_as_good_as_the_spectrum_decays(decay: float, tolerance: float) -> None:
    w, x = weight(600, 500), activations(1500, 500, decay)
    wanted, values, energy = reference(x, w, 8)
    sketch = Sketch("model.layers.0.q_proj", w, 8)
    for part in x.split(400):
        sketch.add(part)
    found = sketch.subspace(w, 8)
    assert angle(found.basis, wanted) < tolerance
    assert found.energy == pytest.approx(energy, rel=10 * tolerance)
    assert torch.allclose(found.values.double(), values, rtol=10 * tolerance)


def test_no_more_directions_are_given_than_the_outputs_have() -> None:
    w, x = weight(48, 32), activations(3, 32, 0.9)
    for moment in (SecondMoment(32, CPU), Sketch("m", w, 8)):
        moment.add(x)
        assert moment.subspace(w, 8).basis.shape == (48, 3)


def test_outputs_that_are_all_zero_have_no_directions() -> None:
    w = weight(48, 32)
    for moment in (SecondMoment(32, CPU), Sketch("m", w, 8)):
        moment.add(torch.zeros(5, 32))
        with pytest.raises(ValueError, match="only zeros"):
            moment.subspace(w, 8)
