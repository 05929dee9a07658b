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
    if method.name == "prune":
        return torch.zeros_like(found.c_b)
    if method.name == "scale":
        return pair.b.to(found.c_b.dtype) * (method.factor or 0.0)
    if method.rescale == "preserve_norm" and found.measures.retained_energy > 0:
        return found.c_b / found.measures.retained_energy
    return found.c_b


def distance_figure(b: Tensor, c_b: Tensor) -> float:
    """`1 / (1 + ||B - C B||_F)`, the official code's pdst for a module that ends with `b`."""
    return 1 / (1 + float(torch.linalg.vector_norm(b.double() - c_b.double())))
