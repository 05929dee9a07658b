"""One module's LoRA factors, and every number about its update from r x r Gram matrices.

`<X A, Y A>_F = sum((X^T Y) * (A A^T))`, so neither `dW` nor `C dW` (both `d_out x d_in`) is ever
formed. The Grams are summed in float64: a float32 cosine over 16 M elements was off in its third
digit (0.7094 against 0.7082).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LoraPair:
    """The factors of `dW = scaling * b @ a`."""

    a: Tensor  # (r, d_in), any float dtype
    b: Tensor  # (d_out, r), any float dtype
    scaling: float


@dataclass(frozen=True)
class Measures:
    """How a module's update `dW` stands to its projection `C dW`."""

    cosine: float  # <dW, C dW>_F / (||dW||_F ||C dW||_F); 0 when C dW is zero
    retained_energy: float  # ||C dW||_F / ||dW||_F
    update_norm: float  # ||dW||_F, scaling included
    pdst_kept: float  # 1 / (1 + ||B - C B||_F): the official code's figure for a module left alone


def update_norm(pair: LoraPair) -> float:
    """`||s B A||_F`, from float64 Grams."""
    squared = _inner(_gram(pair.b, pair.b), _gram_of_rows(pair.a))
    return abs(pair.scaling) * math.sqrt(max(0.0, squared))


def measure(pair: LoraPair, c_b: Tensor) -> Measures:
    """Compare `dW` with `C dW`, given `c_b = C @ B`, `(d_out, r)`.

    Raises ZeroDivisionError for a zero update: it has no cosine, and the caller skips it first.
    """
    a_gram = _gram_of_rows(pair.a)
    plain = _inner(_gram(pair.b, pair.b), a_gram)  # ||B A||_F^2
    projected = max(0.0, _inner(_gram(c_b, c_b), a_gram))  # ||C B A||_F^2; rounding may go below 0
    distance = float(torch.linalg.vector_norm(pair.b.double() - c_b.double()))
    inner = _inner(_gram(pair.b, c_b), a_gram)
    return compared(inner, plain, projected, distance, abs(pair.scaling))


def compared(
    inner: float, plain: float, projected: float, distance: float, scaling: float = 1.0
) -> Measures:
    """From `<D, C D>_F`, `||D||_F^2` (not zero) and `||C D||_F^2`, where `dW = scaling * D`;
    `distance` is what was left when `C` was applied."""
    return Measures(
        cosine=_cosine(inner, plain, projected),
        retained_energy=math.sqrt(projected / plain),
        update_norm=scaling * math.sqrt(plain),
        pdst_kept=1 / (1 + distance),
    )


def _gram(x: Tensor, y: Tensor) -> Tensor:
    """`X^T Y`, `(r, r)` float64."""
    return x.double().T @ y.double()


def _gram_of_rows(a: Tensor) -> Tensor:
    """`A A^T`, `(r, r)` float64."""
    return a.double() @ a.double().T


def _inner(x_gram: Tensor, a_gram: Tensor) -> float:
    """`<X A, Y A>_F` from `X^T Y` and `A A^T`."""
    return float((x_gram * a_gram).sum())


def _cosine(inner: float, squared_x: float, squared_y: float) -> float:
    """From an inner product and two squared norms.

    `sqrt(x * x)` is exactly `x`, so an update that its projector leaves alone has a cosine of
    exactly 1, and several such modules are a true tie.
    """
    if squared_y == 0:
        return 0.0
    product = squared_x * squared_y
    if not 0 < product < math.inf:  # factors near the ends of float64's range
        return min(1.0, max(-1.0, inner / math.sqrt(squared_x) / math.sqrt(squared_y)))
    return min(1.0, max(-1.0, inner / math.sqrt(product)))
