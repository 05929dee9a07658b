"""Block Krylov iteration against the whole eigendecomposition."""

import pytest
import torch
from torch import Tensor

from app.alignment.leading import MOST_BLOCKS, SMALL, leading


def spectrum_of(values: Tensor, seed: int = 1) -> tuple[Tensor, Tensor]:
    """A symmetric matrix with these eigenvalues, and its eigenvectors in their order."""
    generator = torch.Generator().manual_seed(seed)
    d = len(values)
    basis = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator)).Q
    return (basis * values) @ basis.T, basis


def angle(x: Tensor, y: Tensor) -> float:
    """Sine of the largest principal angle between two subspaces, `(d, r)` orthonormal each."""
    return float(torch.linalg.matrix_norm(x.double() - y.double() @ (y.double().T @ x.double()), 2))


DECAYS = {
    "fast": lambda d: 0.5 ** torch.arange(d, dtype=torch.float64),
    "slow": lambda d: 1 / torch.arange(1, d + 1, dtype=torch.float64),
    "one outlier": lambda d: torch.cat(
        [torch.tensor([1e6]).double(), torch.linspace(1, 0.1, d - 1)]
    ),
    "a small gap": lambda d: torch.cat(
        [torch.linspace(2, 1.01, 8).double(), torch.linspace(1, 0.5, d - 8).double()]
    ),
    "of low rank": lambda d: torch.cat([torch.ones(8).double(), torch.zeros(d - 8).double()]),
}


@pytest.mark.parametrize("d", [40, SMALL, SMALL + 200])
@pytest.mark.parametrize("decay", DECAYS)
def test_the_subspace_is_the_whole_decompositions(d: int, decay: str) -> None:
    values = DECAYS[decay](d)
    matrix, basis = spectrum_of(values)
    found = leading(lambda v: matrix @ v, d, 8)
    assert found.vectors.shape == (d, 8)
    # 1e-5: the residual is stopped at 1e-6 of the gap
    assert angle(found.vectors, basis[:, :8]) < 1e-5
    assert torch.allclose(found.values, values[:8], rtol=1e-9, atol=1e-9 * float(values[0]))


def test_columns_are_orthonormal_where_there_is_no_gap_at_all() -> None:
    d = SMALL + 100
    found = leading(lambda v: v.clone(), d, 8)
    assert torch.allclose(found.vectors.T @ found.vectors, torch.eye(8).double(), atol=1e-12)


def test_the_same_operator_gives_the_same_bits() -> None:
    matrix, _ = spectrum_of(DECAYS["slow"](SMALL + 88))
    one, two = (leading(lambda v: matrix @ v, SMALL + 88, 4) for _ in range(2))
    assert torch.equal(one.vectors, two.vectors)


def test_a_large_operator_is_applied_to_few_columns() -> None:
    matrix, _ = spectrum_of(DECAYS["fast"](1200))
    columns = []

    def operator(v: Tensor) -> Tensor:
        columns.append(v.shape[1])
        return matrix @ v

    leading(operator, 1200, 8)
    assert sum(columns) < 1200 / 4


def test_a_spectrum_that_hardly_decays_is_found_without_decomposing_all_of_it() -> None:
    """As the outputs of random weights have it: several restarts."""
    d, rank = 1000, 16
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(d, d, dtype=torch.float64, generator=generator)
    values, basis = torch.linalg.eigh(noise @ noise.T / d)
    applied = []

    def operator(v: Tensor) -> Tensor:
        applied.append(v.shape[1])
        return basis @ (values[:, None] * (basis.T @ v))

    found = leading(operator, d, rank)
    assert angle(found.vectors, basis[:, -rank:]) < 1e-5
    assert max(applied) < d  # the whole decomposition would ask for all columns at once
    assert len(applied) > 2 * MOST_BLOCKS
