"""What a sweep over activations accumulates, flat in tokens, and the subspace that comes of it.

`Y = X W^T` `(n, d_out)` is never kept. Its top right singular vectors are the leading eigenvectors
of `Y^T Y = W (X^T X) W^T`, and `X^T X` is the same for all modules that read the same input. Two
ways:

- `SecondMoment`, exact: `X^T X` (or `Y^T Y`, where `d_out` is smaller) in float64.
- `Sketch`, where that many second moments would not fit: `Y^T Y Omega` of a random
  `Omega` `(d_out, k)`, from which the Nystroem approximation of `Y^T Y` gives the subspace in one
  pass (Tropp, Yurtsever, Udell and Cevher, NeurIPS 2017, algorithm 3).
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from app.alignment.leading import leading, orthonormal, signs

SKETCH_PER_RANK = 8  # columns of a sketch for each direction that is asked for
LEAST_SKETCH = 256
STRIPS = 8  # of a symmetric sum, each from its diagonal on: 0.6 of the time of all its entries
RANK_TOLERANCE = 1e-6  # of the largest singular value: below, a direction is rounding of the model


@dataclass(frozen=True)
class Subspace:
    """The top right singular vectors of `Y`, SaLoRA's `V_s` or `V_t`."""

    basis: Tensor  # (d_out, r) float32, orthonormal columns
    values: Tensor  # (r,) float32, singular values of Y, the largest first
    energy: float  # share of ||Y||_F^2 that they hold
    rows: int  # tokens that Y has


class Moments(Protocol):
    """Accumulated of one module's inputs."""

    rows: int

    @property
    def of_inputs(self) -> bool:
        """Whether it serves every module that reads the same input."""

    def add(self, x: Tensor) -> None:
        """`x` `(n, d_in)`, in any floating dtype."""

    def subspace(self, weight: Tensor, rank: int) -> Subspace:
        """At most `rank` directions, `weight` `(d_out, d_in)`; fewer where `Y` has no more. Raises
        ValueError where `Y` is zero or has no rows."""


class SecondMoment:
    """`X^T X`, `(d, d)` float64. With `weight` it is of `X W^T`, else of the inputs."""

    def __init__(self, d: int, device: torch.device, weight: Tensor | None = None) -> None:
        self.rows, self._weight = 0, weight
        self._total = torch.zeros(d, d, dtype=torch.float64, device=device)

    @property
    def of_inputs(self) -> bool:
        return self._weight is None

    def add(self, x: Tensor) -> None:
        wide = _outputs(x, self._weight) if self._weight is not None else x.double()
        for begin, end in _strips(self._total.shape[0]):
            self._total[begin:end, begin:].addmm_(wide[:, begin:end].T, wide[:, begin:])
        self.rows += x.shape[0]

    def subspace(self, weight: Tensor, rank: int) -> Subspace:
        total, w = self._mirrored(), weight.double()
        if self._weight is not None:
            whole = _checked(float(total.trace()))
            found = leading(lambda v: total @ v, w.shape[0], rank, total.device)
        else:
            whole = _checked(float(((w @ total) * w).sum()))
            found = leading(lambda v: w @ (total @ (w.T @ v)), w.shape[0], rank, total.device)
        return _subspace(found.vectors, found.values, whole, self.rows)

    def _mirrored(self) -> Tensor:
        """All of the sum, of which `add` touches what is right of the diagonal."""
        for begin, end in _strips(self._total.shape[0]):
            self._total[end:, begin:end] = self._total[begin:end, end:].T
        return self._total


def _strips(d: int) -> Iterator[tuple[int, int]]:
    width = -(-d // STRIPS)
    return ((begin, min(begin + width, d)) for begin in range(0, d, width))


class Sketch:
    """`Y^T Y Omega`, `(d_out, k)` float64, for an orthonormal random `Omega`, and `||Y||_F^2`."""

    def __init__(self, name: str, weight: Tensor, rank: int) -> None:
        self.rows, self._weight, self._squared = 0, weight, 0.0
        shape = (weight.shape[0], min(weight.shape[0], sketch_width(rank)))
        self._omega = _orthonormal(name, shape).to(weight.device)
        self._total = torch.zeros_like(self._omega)

    @property
    def of_inputs(self) -> bool:
        return False

    def add(self, x: Tensor) -> None:
        y = _outputs(x, self._weight)
        self._total.addmm_(y.T, y @ self._omega)
        self._squared += float(y.square().sum())
        self.rows += x.shape[0]

    def subspace(self, weight: Tensor, rank: int) -> Subspace:
        whole = _checked(self._squared)
        shift = torch.finfo(torch.float64).eps * float(torch.linalg.norm(self._total))
        total = self._total + shift * self._omega
        core = self._omega.T @ total
        factor = torch.linalg.cholesky((core + core.T) / 2)
        half = torch.linalg.solve_triangular(factor, total.T, upper=False).T
        vectors, values, _ = torch.linalg.svd(half, full_matrices=False)
        squares = (values.square() - shift).clamp_min(0)
        return _subspace(vectors[:, :rank], squares[:rank], whole, self.rows)


def _orthonormal(name: str, shape: tuple[int, int]) -> Tensor:
    """The same for the same name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
    generator = torch.Generator().manual_seed(seed)
    return orthonormal(torch.randn(shape, dtype=torch.float64, generator=generator))


def sketch_width(rank: int) -> int:
    return max(LEAST_SKETCH, SKETCH_PER_RANK * rank)


def _outputs(x: Tensor, weight: Tensor) -> Tensor:
    """`X W^T`, `(n, d_out)`, its product in float32 or better, as float64."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return (x.to(dtype) @ weight.to(dtype).T).double()


def _checked(whole: float) -> float:
    """`||Y||_F^2`. Raises ValueError."""
    if not math.isfinite(whole):
        raise ValueError("its outputs hold NaN or infinity")
    if not whole > 0:
        raise ValueError("no outputs, or only zeros")
    return whole


def _subspace(vectors: Tensor, squares: Tensor, whole: float, rows: int) -> Subspace:
    """Without directions in which there is nothing but rounding."""
    values = squares.clamp_min(0).sqrt()
    kept = int((values > RANK_TOLERANCE * values[0]).sum())
    energy = min(1.0, float(squares[:kept].sum()) / whole)
    basis = vectors[:, :kept] * signs(vectors[:, :kept])
    return Subspace(basis.float().contiguous(), values[:kept].float(), energy, rows)
