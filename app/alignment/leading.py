"""The leading eigenvectors of a symmetric positive semidefinite operator, without its matrix.

Block Krylov iteration with Rayleigh-Ritz (Musco and Musco, NeurIPS 2015, algorithm 2), until the
residual says that the leading subspace is found. A basis that has become wide is restarted from its
best vectors (Wu and Simon, SIAM J. Matrix Anal. Appl. 2000): what is decomposed stays small. A
d_out x d_out matrix is never built where `d_out` is large, and no full eigendecomposition is made
of it, which costs as much as six products of the same size on one thread.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SMALL = 512  # below, the whole decomposition is as fast
OVERSAMPLING = 16  # columns of a block beyond the rank that is asked for
MOST_BLOCKS, KEPT_BLOCKS = 6, 2  # of a basis: where it is restarted, and what it keeps
MOST_APPLIED = 4  # columns given to the operator, as a multiple of d; beyond, all is decomposed
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
    width = rank + OVERSAMPLING
    if d <= SMALL or (MOST_BLOCKS + 2) * width >= d:
        return _whole(operator, d, rank, device)
    basis = _first_block(d, width, device)
    image, applied, checked_at = operator(basis), width, width
    while applied <= MOST_APPLIED * d:
        if basis.shape[1] == checked_at:
            found = _ritz(basis, image, KEPT_BLOCKS * width)
            if found.residual(rank) <= found.allowed(rank):
                return Leading(found.vectors[:, :rank], found.values[:rank].clamp_min(0))
            if checked_at == MOST_BLOCKS * width:
                basis, image = found.vectors, found.images
            checked_at = min(2 * checked_at, MOST_BLOCKS * width)
        block = _next_block(image[:, -width:], basis)
        basis, image = torch.cat([basis, block], 1), torch.cat([image, operator(block)], 1)
        applied += width
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


@dataclass(frozen=True)
class _Ritz:
    """The best pairs within a basis, the largest first."""

    vectors: Tensor  # (d, k), orthonormal columns
    images: Tensor  # (d, k), the operator's
    values: Tensor  # (k,)

    def residual(self, rank: int) -> float:
        left = self.images[:, :rank] - self.vectors[:, :rank] * self.values[:rank]
        return float(torch.linalg.vector_norm(left))

    def allowed(self, rank: int) -> float:
        gap = float(self.values[rank - 1] - self.values[rank])
        return max(NOISE * float(self.values[0]), ANGLE * gap)


def _ritz(basis: Tensor, image: Tensor, most: int) -> _Ritz:
    small = basis.T @ image
    values, mix = torch.linalg.eigh((small + small.T) / 2)
    values, mix = values.flip(0)[:most], mix.flip(1)[:, :most]
    return _Ritz(basis @ mix, image @ mix, values)
