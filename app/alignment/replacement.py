"""What a selected module's `B` becomes."""

import torch
from torch import Tensor

from app.alignment.lora import LoraPair
from app.alignment.projection import Projected
from app.domain.method import Method


def replacement(pair: LoraPair, found: Projected, method: Method) -> Tensor:
    """`(d_out, r)`, float32 or float64.

    `safe_lora`: `C B`, or with `rescale="preserve_norm"` `C B ||dW||_F / ||C dW||_F` (zero where
    `C dW` is zero: there is no direction to scale). `scale`: `factor * B`. `prune`: zero.
    """
    return replaced(pair.b, found.c_b, found.measures.retained_energy, method)


def replaced(before: Tensor, projected: Tensor, retained_energy: float, method: Method) -> Tensor:
    """What columns `before` `(d_out, n)` become, given `projected`, which is `C @ before`."""
    if method.name == "prune":
        return torch.zeros_like(projected)
    if method.name == "scale":
        return before.to(projected.dtype) * (method.factor or 0.0)
    if method.rescale == "preserve_norm" and retained_energy > 0:
        return projected / retained_energy
    return projected


def replaced_magnitude(before: Tensor, chat_norms: Tensor, method: Method) -> Tensor:
    """What DoRA's magnitude `(d_out,)` becomes: it returns to the norms of the chat model's own
    weight, so that a module whose update is gone is the chat model's again; `scale` goes a part
    of the way."""
    if method.name == "scale":
        return chat_norms + (method.factor or 0.0) * (before.double() - chat_norms)
    return chat_norms


def distance_figure(b: Tensor, c_b: Tensor) -> float:
    """`1 / (1 + ||B - C B||_F)`, the official code's pdst for a module that ends with `b`."""
    return 1 / (1 + float(torch.linalg.vector_norm(b.double() - c_b.double())))
