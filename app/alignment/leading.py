"""The leading eigenvectors of a symmetric positive semidefinite operator, without its matrix.

Block Krylov iteration with Rayleigh-Ritz (Musco and Musco, NeurIPS 2015, algorithm 2), grown until
the residual says that the leading subspace is found. A d_out x d_out matrix is never built where
`d_out` is large, and no full eigendecomposition is made of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SMALL = 512  # below, the whole decomposition is as fast
OVERSAMPLING = 16  # columns of a block beyond the rank that is asked for
NOISE = 1e-13  # relative to the largest value; float64 cannot say more
ANGLE = 1e-6  # of the subspace, where the spectrum has a gap behind it (Davis and Kahan)

Operator = Callable[[Tensor], Tensor]
"""`(d, n)` float64 -> `(d, n)` float64."""


@dataclass(frozen=True)
class Leading:
    """Eigenpairs, the largest first."""

    vectors: Tensor  # (d, k) float64, orthonormal columns
    values: Tensor  # (k,) float64, not negative


def leading(operator: Operator, d: int, rank: int, device: torch.device | None = None) -> Leading:
    """The `rank` leading eigenpairs; of a subspace without a gap behind it, some basis.

    The same operator gives the same bits: the first block comes from a seed of its own.
    """
    if d <= SMALL or 4 * (rank + OVERSAMPLING) >= d:
        return _whole(operator, d, rank, device)
    basis = _first_block(d, rank + OVERSAMPLING, device)
    image = operator(basis)
    while basis.shape[1] <= d // 2:
        found, residual = _ritz(basis, image, rank)
        if residual <= _allowed(found, rank):
            return Leading(found.vectors[:, :rank], found.values[:rank])
        block = _next_block(image[:, -(rank + OVERSAMPLING) :], basis)
        basis, image = torch.cat([basis, block], 1), torch.cat([image, operator(block)], 1)
    return _whole(operator, d, rank, device)


def _whole(operator: Operator, d: int, rank: int, device: torch.device | None) -> Leading:
    matrix = operator(torch.eye(d, dtype=torch.float64, device=device))
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return Leading(vectors.flip(1)[:, :rank], values.flip(0)[:rank].clamp_min(0))


def signs(columns: Tensor) -> Tensor:
    """`(1, n)`: what makes the largest entry of each column positive, because a decomposition
    leaves signs open."""
    return columns.gather(0, columns.abs().argmax(0, keepdim=True)).sign()


def _first_block(d: int, width: int, device: torch.device | None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(d, width, dtype=torch.float64, generator=generator).to(device)
    return orthonormal(block)


def orthonormal(columns: Tensor) -> Tensor:
    """An orthonormal basis of what the columns span, `(d, n)`."""
    basis: Tensor = torch.linalg.qr(columns).Q
    return basis


def _next_block(image: Tensor, basis: Tensor) -> Tensor:
    """What the last block's image adds to the basis; twice, because once leaves rounding."""
    for _ in range(2):
        image = orthonormal(image - basis @ (basis.T @ image))
    return image


def _ritz(basis: Tensor, image: Tensor, rank: int) -> tuple[Leading, float]:
    """The best pairs within the basis, one more than asked for, and the residual of those asked
    for."""
    small = basis.T @ image
    values, mix = torch.linalg.eigh((small + small.T) / 2)
    values, mix = values.flip(0)[: rank + 1], mix.flip(1)[:, : rank + 1]
    vectors = basis @ mix
    residual = (image @ mix - vectors * values)[:, :rank]
    norm = float(torch.linalg.vector_norm(residual))
    return Leading(vectors, values.clamp_min(0)), norm


def _allowed(found: Leading, rank: int) -> float:
    gap = float(found.values[rank - 1] - found.values[rank])
    return max(NOISE * float(found.values[0]), ANGLE * gap)
