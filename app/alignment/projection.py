"""One module: a projector applied to columns, and what that says about an adapter's update.

The two steps stand apart, because one reading of `V` serves the columns of many adapters.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from app.alignment.approximate import apply_approximate
from app.alignment.blocks import Scratch
from app.alignment.difference import Difference
from app.alignment.lora import LoraPair, Measures, measure, update_norm
from app.alignment.subspace import Directions, directions, spectrum
from app.domain.method import Method, Projection
from app.domain.report import IDENTITY, ZERO_ALIGNMENT, ZERO_UPDATE, AlignmentSource

EVERYTHING = "the directions span everything"
NOISE = 1e-12  # relative; float64 rounding through a few thousand directions stays below it


@dataclass(frozen=True)
class Applied:
    """`C` applied to the columns that it was given."""

    product: Tensor  # (d_out, n), float32 or float64
    alignment_norm: float | None  # ||V||_F; None for a safety module, which has no V
    note: str = ""
    source: AlignmentSource | None = "computed"
    nothing: str = ""  # why there is no `C` for this module: then nothing was screened

    def part(self, columns: slice) -> "Applied":
        """What became of some of the columns."""
        return replace(self, product=self.product[:, columns])

    def beyond(self, columns: Tensor, projection: Projection) -> "Applied":
        """The same for `columns` with more rows than `V`, which is zero there: the new tokens of an
        output head. `C` is zero there, and the complement's `C` the identity."""
        rows = columns[self.product.shape[0] :].to(self.product.dtype)
        if not len(rows):
            return self
        rest = rows if projection.projector == "complement" else torch.zeros_like(rows)
        product = torch.cat([self.product, rest])
        return replace(self, product=product, note="")  # these rows make it no identity


@dataclass(frozen=True)
class Projected:
    """A module with a cosine: `c_b` is what `B` becomes if the module is selected."""

    c_b: Tensor  # (d_out, r), float32 or float64
    alignment_norm: float | None  # ||V||_F
    measures: Measures
    note: str = ""
    source: AlignmentSource | None = "computed"


@dataclass(frozen=True)
class Skipped:
    """A module with no cosine. It was not screened, and is never called safe."""

    reason: str
    update_norm: float
    alignment_norm: float | None  # ||V||_F where it was computed
    cosine: None = None


class DifferenceNotFinite(ValueError):
    """`V` holds NaN or infinity; the caller knows the files and names the tensor."""


def project(
    pair: LoraPair, v: Difference, method: Method, scratch: Scratch | None = None
) -> Projected | Skipped:
    """Apply the method's projector to one module (Safe LoRA, arXiv 2405.16833; see the formulas in
    `approximate` and `subspace`).

    Raises DifferenceNotFinite. `pair` must be finite.
    """
    return zero_update(pair) or examined(
        pair, apply(v, pair.b, method.projection, scratch or Scratch())
    )


def zero_update(pair: LoraPair) -> Skipped | None:
    """The outcome of a module whose update is zero: `V` need not be read for it."""
    return None if update_norm(pair) else Skipped(ZERO_UPDATE, 0.0, None)


def examined(pair: LoraPair, applied: Applied) -> Projected | Skipped:
    """What `applied`, which is `C B` of this pair, says about its update (which is not zero)."""
    if applied.nothing:
        return Skipped(applied.nothing, update_norm(pair), None)
    if applied.alignment_norm == 0:
        return Skipped(ZERO_ALIGNMENT, update_norm(pair), 0.0)
    c_b = applied.product
    measures = measure(pair, c_b)
    return Projected(c_b, applied.alignment_norm, measures, applied.note, applied.source)


def apply(v: Difference, columns: Tensor, projection: Projection, scratch: Scratch) -> Applied:
    """`C @ columns` for `columns` `(d_out, n)`. Raises DifferenceNotFinite."""
    if projection.projector == "approximate":
        applied = Applied(*apply_approximate(v, columns, scratch))
    else:
        applied = apply_directions(directions(spectrum(v), projection), columns, projection)
    if not math.isfinite(applied.alignment_norm or 0.0):
        raise DifferenceNotFinite(v.chat.name)
    return applied


def apply_directions(found: Directions, columns: Tensor, projection: Projection) -> Applied:
    """`C @ columns` in float64, for the projectors that need singular vectors."""
    if projection.projector == "complement":
        left = columns.double() - found.project(columns)
        return Applied(without_noise(left, columns), found.norm)
    if found.basis is None:
        whole = "V has full row rank" if projection.projector == "exact" else EVERYTHING
        return Applied(columns.double(), found.norm, f"{whole}: {IDENTITY}")
    return Applied(without_noise(found.project(columns), columns), found.norm)


def without_noise(projected: Tensor, columns: Tensor) -> Tensor:
    """Zero in each column where the projection left only rounding: its direction would mean
    nothing."""
    left, whole = (
        torch.linalg.vector_norm(t, dim=0, dtype=torch.float64) for t in (projected, columns)
    )
    return projected.masked_fill(left <= NOISE * whole, 0.0)
