"""Where SaLoRA's training starts and what it ends as (Li et al., ICLR 2025; arXiv 2501.01765).

With `C = I - V_s V_s^T`, `U S Z^T` the truncated SVD of the chat weight `W` and `V_t` the task's
subspace: `B0 = V_t V_t^T U sqrt(S)`, `A0 = sqrt(S) Z^T`. The paper trains `W' x + s C B A x` with
`W' = W - s C B0 A0`; the same without touching `W` is `W x + s C (B A - B0 A0) x`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from app.alignment.leading import leading, signs


@dataclass(frozen=True)
class Start:
    """`A0` and `B0` of one module."""

    a: Tensor  # (r, d_in) float32
    b: Tensor  # (d_out, r) float32


@dataclass(frozen=True)
class Factors:
    """An update `scaling * b @ a` of the original weight."""

    a: Tensor  # (R, d_in)
    b: Tensor  # (d_out, R)


def start(weight: Tensor, rank: int, task_basis: Tensor | None) -> Start:
    """From `W` `(d_out, d_in)` and `V_t` `(d_out, r_t)`; without `V_t` its projection is left out.

    Singular vectors are those of the smaller side's Gram operator, in float64. Their signs are
    fixed (the largest entry of each column of `U` is positive), because an SVD leaves them open.
    """
    w = weight.double()
    if w.shape[0] <= w.shape[1]:
        found = leading(lambda v: w @ (w.T @ v), w.shape[0], rank, w.device)
        left, values = found.vectors, _roots(found.values)
        right = w.T @ left / values
    else:
        found = leading(lambda v: w.T @ (w @ v), w.shape[1], rank, w.device)
        right, values = found.vectors, _roots(found.values)
        left = w @ right / values
    left, right = left * signs(left), right * signs(left)
    if task_basis is not None:
        v_t = task_basis.double()
        left = v_t @ (v_t.T @ left)
    root = values.sqrt()
    return Start((right * root).T.float().contiguous(), (left * root).float().contiguous())


def _roots(values: Tensor) -> Tensor:
    """Singular values from eigenvalues; not zero, because they divide."""
    return values.sqrt().clamp_min(torch.finfo(torch.float64).tiny)


def zero_start(weight: Tensor, rank: int, seed: int) -> Start:
    """As PEFT starts a LoRA: `A` uniform (Kaiming, a = sqrt 5), `B` zero; so `A0` takes no part in
    the forward pass."""
    d_out, d_in = weight.shape
    bound = 1 / math.sqrt(d_in)
    generator = torch.Generator().manual_seed(seed)
    a = (2 * torch.rand(rank, d_in, generator=generator) - 1) * bound
    return Start(a, torch.zeros(d_out, rank))


def complement(safety: Tensor, columns: Tensor) -> Tensor:
    """`C @ columns` for `V_s` `(d_out, r_s)` and `columns` `(d_out, n)`, in float64."""
    v, wide = safety.double(), columns.double()
    return wide - v @ (v.T @ wide)


def exported(a: Tensor, b: Tensor, begin: Start | None, safety: Tensor) -> Factors:
    """The trained update on the original weight, in float64: `[A; A0]` and `[C B, -C B0]`.

    Its rank is that of the adapter and of the start together. Without a start (`B0` is zero) it is
    `C B` and `A`.
    """
    projected = complement(safety, b)
    if begin is None:
        return Factors(a.double(), projected)
    a_both = torch.cat([a.double(), begin.a.double()])
    return Factors(a_both, torch.cat([projected, -complement(safety, begin.b)], 1))


def recompressed(given: Factors, rank: int) -> tuple[Factors, float]:
    """The best update of that rank (Eckart and Young), by QR of both factors and the SVD of an
    R x R core; and its relative error `||dW - dW_rank||_F / ||dW||_F`."""
    q_b, r_b = torch.linalg.qr(given.b.double())
    q_a, r_a = torch.linalg.qr(given.a.double().T)
    left, values, right = torch.linalg.svd(r_b @ r_a.T)
    root, k = values[:rank].sqrt(), min(rank, len(values))
    whole = float(torch.linalg.vector_norm(values))
    lost = float(torch.linalg.vector_norm(values[k:]))
    b = q_b @ (left[:, :k] * root)
    a = (right[:k].T * root).T @ q_a.T
    return Factors(a, b), lost / whole if whole else 0.0
