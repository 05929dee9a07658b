"""A safety module as a file, and what its `V_s` says about an adapter.

The safetensors file has, for each module, `<name>.V` (`V_s`, `(d_out, r_s)` float32, orthonormal
columns) and `<name>.singular_values` `(r_s,)`; its metadata has `made_of`, JSON.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.alignment.moments import Subspace
from app.alignment.projection import Applied, without_noise
from app.alignment.salora_start import complement

SAFETY_MODULE_FILE = "safety_module.safetensors"
MADE_OF = "made_of"
ORTHONORMAL = 1e-4  # of ||V_s^T V_s - I||_F; float32 leaves about 1e-6
NO_BASIS = "the safety module has no V_s for it"


@dataclass(frozen=True)
class SafetyModule:
    """`V_s` of each module."""

    made_of: Mapping[str, Any]
    bases: Mapping[str, Tensor]  # full name -> (d_out, r_s) float32

    @classmethod
    def load(cls, path: Path) -> "SafetyModule":
        """Raises FileNotFoundError, and ValueError for a file that is no safety module."""
        try:
            with safe_open(path, framework="pt") as file:
                made_of = checked_made_of(json.loads((file.metadata() or {})[MADE_OF]))
                names = sorted(name for name in file.keys() if name.endswith(".V"))  # noqa: SIM118 because it is no dict
                found = {n.removesuffix(".V"): checked_basis(file.get_tensor(n)) for n in names}
        except (SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a safety module") from error
        return cls(made_of, found)


def save(path: Path, found: Mapping[str, Subspace], made_of: Mapping[str, object]) -> None:
    """The same content gives the same bytes."""
    tensors: dict[str, Tensor] = {}
    for name, subspace in found.items():
        tensors[f"{name}.V"] = subspace.basis.cpu().contiguous()
        tensors[f"{name}.singular_values"] = subspace.values.cpu().contiguous()
    save_file(tensors, path, {MADE_OF: json.dumps(made_of, sort_keys=True)})


def apply_safety(basis: Tensor | None, columns: Tensor) -> Applied:
    """`C @ columns` for `columns` `(d_out, n)`, with `C = I - V_s V_s^T`, in float64.

    SaLoRA's projection put on a trained adapter: ours, not the paper's.
    """
    if basis is None:
        return Applied(columns, None, source=None, nothing=NO_BASIS)
    if basis.shape[0] != columns.shape[0]:
        reason = f"the safety module's V_s has {basis.shape[0]} rows here, not {columns.shape[0]}"
        return Applied(columns, None, source=None, nothing=reason)
    return Applied(without_noise(complement(basis, columns), columns), None, source=None)


def safety_share(a: Tensor, b: Tensor, safety: Tensor) -> float:
    """`||V_s^T B A||_F / ||B A||_F`, from float64 Grams; 0 for an update of zero."""
    rows, wide = a.double(), b.double()
    gram, inside = rows @ rows.T, safety.double().to(wide.device).T @ wide
    whole = float(((wide.T @ wide) * gram).sum())
    part = float(((inside.T @ inside) * gram).sum())
    return math.sqrt(max(0.0, part) / whole) if whole > 0 else 0.0


def checked_made_of(given: object) -> dict[str, Any]:
    """What a part was made of. Raises ValueError where it does not say of which model."""
    if not isinstance(given, dict) or not isinstance(given.get("chat_digest"), str):
        raise ValueError("it does not say what it was made of")
    return given


def checked_basis(safety: Tensor) -> Tensor:
    """`V_s` as it came. Raises ValueError where `I - V_s V_s^T` is no projection: it would hold
    nothing, and nobody would see it."""
    is_matrix = safety.ndim == 2 and safety.dtype == torch.float32 and 0 not in safety.shape
    if not is_matrix or not orthonormality(safety) <= ORTHONORMAL:  # NaN is not
        raise ValueError("V_s has no orthonormal columns")
    return safety


def orthonormality(safety: Tensor) -> float:
    """`||V_s^T V_s - I||_F`: what keeps `C` from being a projection."""
    v = safety.double()
    eye = torch.eye(v.shape[1], dtype=torch.float64, device=v.device)
    return float(torch.linalg.matrix_norm(v.T @ v - eye))
