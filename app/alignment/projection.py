"""One module: its projector applied to `B`, and what that says about the update."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from app.alignment.approximate import apply_approximate
from app.alignment.blocks import torch_threads
from app.alignment.difference import Difference
from app.alignment.lora import LoraPair, Measures, measure, update_norm
from app.alignment.subspace import Spectrum, project_onto, spectrum
from app.domain.method import Method
from app.domain.report import IDENTITY, ZERO_ALIGNMENT, ZERO_UPDATE

NOISE = 1e-12  # relative; float64 rounding through a few thousand directions stays below it


@dataclass(frozen=True)
class Projected:
    """A module with a cosine: `c_b` is what `B` becomes if the module is selected."""

    c_b: Tensor  # (d_out, r), float32 or float64
    alignment_norm: float  # ||V||_F
    measures: Measures
    note: str = ""


@dataclass(frozen=True)
class Skipped:
    """A module with no cosine. It was not screened, and is never called safe."""

    reason: str
    update_norm: float
    alignment_norm: float | None  # ||V||_F where it was computed
    cosine: None = None


class DifferenceNotFinite(ValueError):
    """`V` holds NaN or infinity; the caller knows the files and names the tensor."""


def project(pair: LoraPair, v: Difference, method: Method) -> Projected | Skipped:
    """Apply the method's projector to one module (Safe LoRA, arXiv 2405.16833; see the formulas in
    `approximate` and `subspace`).

    Raises DifferenceNotFinite. `pair` must be finite.
    """
    norm = update_norm(pair)
    if norm == 0:
        return Skipped(ZERO_UPDATE, 0.0, None)
    c_b, alignment_norm, note = _apply(v, pair.b, method)
    if not math.isfinite(alignment_norm):
        raise DifferenceNotFinite(v.chat.name)
    if alignment_norm == 0:
        return Skipped(ZERO_ALIGNMENT, norm, 0.0)
    return Projected(c_b, alignment_norm, measure(pair, c_b), note)


def _apply(v: Difference, b: Tensor, method: Method) -> tuple[Tensor, float, str]:
    """`(C B, ||V||_F, note)`."""
    if method.projector == "approximate":
        return *apply_approximate(v, b), ""
    with torch_threads(v.pool.threads):
        found = spectrum(v)
    if method.projector == "exact" and found.spans_everything:
        return b.double(), found.norm, f"V has full row rank: {IDENTITY}"
    basis = _basis(found, method)
    if method.projector == "subspace" and basis.shape[0] == basis.shape[1]:
        return b.double(), found.norm, f"the directions span everything: {IDENTITY}"
    projected = project_onto(basis, b)
    complement = method.projector == "complement"
    c_b = b.double() - projected if complement else projected
    return _without_noise(c_b, b), found.norm, ""


def _without_noise(c_b: Tensor, b: Tensor) -> Tensor:
    """Zero where the projection left only rounding: its direction would mean nothing."""
    left, whole = (torch.linalg.vector_norm(t, dtype=torch.float64) for t in (c_b, b))
    return c_b if left > NOISE * whole else torch.zeros_like(c_b)


def _basis(found: Spectrum, method: Method) -> Tensor:
    """The directions that the projector keeps (or, for the complement, removes), `(d_out, k)`."""
    if method.projector == "exact":
        return found.basis
    energy = method.resolved_energy
    return found.basis[:, : method.rank] if energy is None else found.holding(energy)
