"""The formulas, dense and in float64, written down as they stand in the papers. Slow on purpose."""

import math

import torch
from torch import Tensor

from app.domain.method import Method, Selection

NEARLY_EXACT = 1e-3
EPS32 = torch.finfo(torch.float32).eps


def projector(w_chat: Tensor, w_base: Tensor, method: Method) -> Tensor:
    """The dense `C`, `(d_out, d_out)` float64, from weights `(d_out, d_in)`."""
    v = w_chat.double() - w_base.double()
    if method.projector == "approximate":
        v = kept(v, w_chat.dtype, w_base.dtype)
        return v @ v.T / torch.linalg.matrix_norm(v)
    u, s, _ = torch.linalg.svd(v, full_matrices=False)
    rank = int((s > s.max() * max(v.shape) * EPS32).sum())
    if method.projector == "exact":
        return v @ torch.linalg.pinv(v, rtol=max(v.shape) * EPS32)
    if method.rank is not None:
        k = min(method.rank, rank)
    else:
        share = (s.square().cumsum(0) / s.square().sum()).tolist()
        wanted = 0.9 if method.energy is None else method.energy
        k = next(i + 1 for i, held in enumerate(share) if held >= wanted * (1 - 1e-12))
    inside = u[:, :k] @ u[:, :k].T
    return (
        torch.eye(len(v), dtype=torch.float64) - inside
        if method.projector == "complement"
        else inside
    )


def kept(v: Tensor, chat: torch.dtype, base: torch.dtype) -> Tensor:
    """`V` as rounded to the checkpoints' own dtype, where that loses next to nothing."""
    if chat != base or chat.itemsize > 2:
        return v
    rounded = v.to(chat).double()
    lost = torch.linalg.matrix_norm(v - rounded) / torch.linalg.matrix_norm(v)
    return rounded if lost <= NEARLY_EXACT else v


def cosine(c: Tensor, a: Tensor, b: Tensor) -> float:
    update = b.double() @ a.double()
    projected = c @ update
    inner = (update * projected).sum()
    return float(inner / (torch.linalg.matrix_norm(update) * torch.linalg.matrix_norm(projected)))


def selected(cosines: list[float], selection: Selection) -> set[int]:
    """The definition of each selection, the slow way: pick the smallest again and again."""
    if selection.by == "threshold":
        return {i for i, value in enumerate(cosines) if value <= selection.value}
    wanted = {
        "all": len(cosines),
        "count": selection.value,
        "fraction": math.ceil(round((selection.value or 0) * len(cosines), 9)),
    }[selection.by]
    left, taken = list(range(len(cosines))), set()
    while left and len(taken) < wanted:
        smallest = min(cosines[i] for i in left)
        first = next(i for i in left if cosines[i] == smallest)
        left.remove(first)
        taken.add(first)
    return taken
