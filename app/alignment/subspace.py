"""The projectors that need the left singular vectors `U` of `V`: `exact`, `subspace`, `complement`.

- `exact`: `C = V (V^T V)^-1 V^T` by pseudo-inverse (Safe LoRA's paper), i.e. `U_k U_k^T` with `k`
  the numerical rank of `V`. With full row rank it is the identity, and changes nothing.
- `subspace`: `C = U_k U_k^T` with the directions that hold a share of `||V||_F^2`: a true
  projection.
- `complement`: `C = I - U_k U_k^T`: anywhere but through the directions that alignment moved.

`U` comes from the float64 Gram matrix of `V`'s smaller side, `min(d_out, d_in)` squared, so that a
tall `V` (11008 x 4096) never needs an 11008 x 11008 matrix. Squaring halves the digits, to about
1e-8 of the largest singular value; the smallest that counts is `max(d_out, d_in) * eps(float32)`
of it, above 1e-7. `C` itself is never built.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from app.alignment.difference import Difference
from app.domain.method import Projection

ENERGY_SLACK = 1e-12  # because a cumulative float64 sum may end just below the whole it sums to


@dataclass(frozen=True)
class Spectrum:
    """The singular values of `V` that count, largest first, and their left vectors."""

    basis: Tensor  # (d_out, k) float64, orthonormal columns
    values: Tensor  # (k,) float64
    norm: float  # ||V||_F, of all of V

    def holding(self, energy: float) -> Tensor:
        """The fewest leading vectors that hold `energy` of `||V||_F^2`, `(d_out, k)`."""
        held = self.values.square().cumsum(0)
        wanted = energy * self.norm**2 * (1 - ENERGY_SLACK)
        return self.basis[:, : int((held < wanted).sum()) + 1]


def spectrum(v: Difference) -> Spectrum:
    """Factorise `V`, which is whole in float64 here.

    Singular values at or below `s_max * max(d_out, d_in) * eps(float32)` count as zero. A `V` that
    is zero, or holds NaN or infinity, has an empty basis; its norm tells which.
    """
    dense = v.dense()
    norm = float(torch.linalg.vector_norm(dense))
    if norm == 0 or not math.isfinite(norm):
        return Spectrum(dense.new_empty(v.d_out, 0), dense.new_empty(0), norm)
    tall = v.d_out > v.d_in
    squares, vectors = torch.linalg.eigh(dense.T @ dense if tall else dense @ dense.T)
    values = squares.clamp_min(0).sqrt().flip(0)
    smallest = values[0] * max(v.d_out, v.d_in) * torch.finfo(torch.float32).eps
    rank = int((values > smallest).sum())
    leading = vectors.flip(1)[:, :rank]
    basis = _left_vectors(dense, leading, values[:rank]) if tall else leading.contiguous()
    return Spectrum(basis, values[:rank], norm)


def _left_vectors(dense: Tensor, right: Tensor, values: Tensor) -> Tensor:
    """`U = V Z / s`, made orthonormal again: dividing by a small `s` lets rounding in."""
    basis: Tensor = torch.linalg.qr(dense @ right / values).Q
    return basis


@dataclass(frozen=True)
class Directions:
    """What a projector needs of a spectrum: `U_k`, or that it spans everything."""

    basis: Tensor | None  # (d_out, k) float64, orthonormal columns; None where k is d_out
    norm: float  # ||V||_F

    def project(self, b: Tensor) -> Tensor:
        """`U_k U_k^T B` in float64, `(d_out, n)`."""
        wide = b.double()
        return wide if self.basis is None else self.basis @ (self.basis.T @ wide)


def directions(found: Spectrum, projection: Projection) -> Directions:
    """The left singular vectors that the projector keeps (or, for the complement, removes)."""
    basis = found.basis
    if projection.projector != "exact":
        energy = projection.energy
        basis = basis[:, : projection.rank] if energy is None else found.holding(energy)
    return Directions(None if basis.shape[0] == basis.shape[1] else basis, found.norm)
