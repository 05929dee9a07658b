"""A full weight's delta `D` through a projector: what a LoRA update goes through, without factors.

`D` goes by columns, and never lies whole in anonymous memory: `C D` waits in a scratch file until
its norm is known, on which depends what is written.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from pathlib import Path

import torch
from torch import Tensor

from app.alignment.lora import Measures, compared
from app.alignment.projection import Applied, Skipped
from app.alignment.replacement import replaced
from app.domain.method import Method, Projection
from app.domain.report import ZERO_ALIGNMENT, ZERO_UPDATE
from workers.alignments import Alignments
from workers.deltas import BLOCK_ELEMENTS, Delta, inner, slices
from workers.patched_weights import PatchedWeights
from workers.reporting import Outcome, Scored

DENSE_C = 8192  # the largest d_out of which a dense C is made, where D has more columns than rows

Apply = Callable[[Tensor], Applied]


def project_delta(
    delta: Delta, alignments: Alignments, method: Method, weights: PatchedWeights, scratch: Path
) -> Outcome:
    """Compare `D` with `C D`, and propose what the full weight becomes if it is selected.

    `scratch` is a file to be made, as large as `D`, and removed. Raises NonFiniteTensor.
    """
    sums = _Sums(delta.squared_norm())
    if not sums.plain:
        return Skipped(ZERO_UPDATE, 0.0, None)
    with _mapped(scratch, delta) as product:
        applied = _project(delta, _applier(delta, alignments, method.projection), product, sums)
        if applied.nothing:
            return Skipped(applied.nothing, sqrt(sums.plain), None)
        if applied.alignment_norm == 0:
            return Skipped(ZERO_ALIGNMENT, sqrt(sums.plain), 0.0)
        measures = compared(sums.inner, sums.plain, sums.projected, sqrt(sums.left))
        proposed = _propose(delta, product, measures, method, weights)
    return Scored(
        measures=measures,
        alignment_norm=applied.alignment_norm,
        note="; ".join(filter(None, [_note(delta), applied.note])),
        rounding=proposed.rounding,
        pdst_if_selected=1 / (1 + sqrt(proposed.moved)),
        alignment=applied.source,
    )


def _note(delta: Delta) -> str:
    feature = delta.weight.feature
    return f"a full weight ({feature}), compared by what it changes of the chat model's"


@contextmanager
def _mapped(path: Path, delta: Delta) -> Iterator[Tensor]:
    """Memory for a tensor as `D` is stored, in a file that is gone afterwards."""
    try:
        size = delta.ours.numel()
        _reserve(path, size * delta.dtype.itemsize)
        flat = torch.from_file(str(path), shared=True, size=size, dtype=delta.dtype)
        yield flat.view(delta.ours.shape)
    finally:
        path.unlink(missing_ok=True)


def _reserve(path: Path, size_bytes: int) -> None:
    """Raises OSError on a full disk, where writing to mapped memory would end the process."""
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        else:
            file.truncate(size_bytes)


# ------------------------------------------------------------------------------------------ reading
@dataclass
class _Sums:
    """Squares and products over all of `D`, in float64."""

    plain: float  # ||D||_F^2
    projected: float = 0.0  # ||C D||_F^2
    inner: float = 0.0  # <D, C D>_F
    left: float = 0.0  # ||D - C D||_F^2

    def add(self, d: Tensor, c_d: Tensor) -> None:
        for at in slices(d.shape[0], BLOCK_ELEMENTS // d.shape[1]):
            left = d[at].double() - c_d[at].double()
            self.projected += inner(c_d[at], c_d[at])
            self.inner += inner(d[at], c_d[at])
            self.left += inner(left, left)


def _project(delta: Delta, apply: Apply, product: Tensor, sums: _Sums) -> Applied:
    """`C D` into `product`, as `D` is stored; returns what was said of `V`."""
    found: list[Applied] = []
    for at in delta.chunks():
        d = delta.turned(delta.stored(*at))
        applied = apply(d)
        sums.add(d, applied.product)
        product[at] = delta.turned(applied.product)
        found.append(applied.part(slice(0)))
    return found[0]


def _applier(delta: Delta, alignments: Alignments, projection: Projection) -> Apply:
    """`C @ columns`; with a dense `C` where `D` has more columns than rows, as an embedding's."""
    d_out, n = delta.shape
    if n <= d_out or d_out > DENSE_C:
        return lambda columns: alignments.apply(delta.module, columns, projection)
    dense = alignments.apply(delta.module, torch.eye(d_out, dtype=delta.dtype), projection)
    c = dense.product
    return lambda columns: replace(dense, product=c @ columns.to(c.dtype))


# ------------------------------------------------------------------------------------------ writing
@dataclass
class _Proposed:
    """Squares over what was proposed, in float64."""

    lost: float = 0.0  # by rounding to the adapter's dtype
    final: float = 0.0  # of what D becomes
    moved: float = 0.0  # of what D becomes, against C D

    @property
    def rounding(self) -> float | None:
        """Relative error; None where something is too large for the adapter's dtype."""
        if not isfinite(self.lost):
            return None
        return sqrt(self.lost / self.final) if self.final else 0.0


def _propose(
    delta: Delta, product: Tensor, measures: Measures, method: Method, weights: PatchedWeights
) -> _Proposed:
    """Keep `W_chat` plus what `D` becomes, by stored rows."""
    found, entry = _Proposed(), delta.weight.entry
    row_bytes = entry.size_bytes // delta.ours.shape[0]
    for at in delta.blocks():
        c_d = product[at].double()
        final = replaced(delta.stored(at), c_d, measures.retained_energy, method)
        wanted = delta.chat[at].double() + final
        rounded = wanted.to(delta.ours.dtype)
        weights.propose_bytes(entry, at.start * row_bytes, rounded)
        error, off = rounded.double() - wanted, final - c_d
        found.lost += inner(error, error)
        found.final += inner(final, final)
        found.moved += inner(off, off)
    return found
