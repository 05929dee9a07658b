"""What the alignment cache keeps of one `V`, as tensors: panels, a Gram matrix, or directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from app.alignment.approximate import scaled
from app.alignment.blocks import Scratch
from app.alignment.gram import GRAM_ROWS
from app.alignment.panels import HeldPanels, PanelLayout, apply_panels
from app.alignment.projection import Applied, apply_directions
from app.alignment.subspace import Directions
from app.domain.method import Projection
from app.storage.alignment_entry import Entry, NewTensor
from workers.checkpoints import TORCH_DTYPES, as_bytes, map_tensor

SAFETENSORS_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
FACTOR_ROWS = 256  # of U_k, checked at once


class Kept(Protocol):
    """Something kept of `V` that a projector can be applied with. Raises DamagedEntry."""

    def apply(self, columns: Tensor, scratch: Scratch) -> Applied:
        """`C @ columns`."""


@dataclass(frozen=True)
class CheckedRows:
    """A tensor in an entry, read by chunks of its first axis; each chunk is checked first."""

    entry: Entry
    name: str
    tensor: Tensor  # mapped
    rows: int  # of one chunk

    def chunk(self, i: int) -> Tensor:
        """Raises DamagedEntry."""
        chunk = self.tensor[i * self.rows : (i + 1) * self.rows]
        self.entry.check(self.name, i, as_bytes(chunk))
        return chunk

    @property
    def count(self) -> int:
        return -(-self.tensor.shape[0] // self.rows)


@dataclass(frozen=True)
class CachedPanels:
    """`Panels` in an entry; a damaged one raises DamagedEntry while it is read."""

    layout: PanelLayout
    stored: CheckedRows

    @property
    def dtype(self) -> torch.dtype:
        return self.stored.tensor.dtype

    def group(self, begin: int, end: int) -> Tensor:
        for i in range(begin, end):
            self.stored.chunk(i)
        return self.stored.tensor[begin:end]


@dataclass(frozen=True)
class KeptPanels:
    panels: CachedPanels
    norm: float

    def apply(self, columns: Tensor, scratch: Scratch) -> Applied:
        product, _ = apply_panels(self.panels, columns, scratch, with_norm=False)
        return Applied(scaled(product, self.norm), self.norm, source="cache")


@dataclass(frozen=True)
class KeptGram:
    gram: CheckedRows  # V V^T, (d_out, d_out) float32
    norm: float

    def apply(self, columns: Tensor, scratch: Scratch) -> Applied:
        b = columns.to(self.gram.tensor.dtype)
        product = torch.cat([self.gram.chunk(i) @ b for i in range(self.gram.count)])
        return Applied(scaled(product, self.norm), self.norm, source="cache")


@dataclass(frozen=True)
class KeptDirections:
    basis: CheckedRows | None  # U_k, (d_out, k) float64
    norm: float
    projection: Projection

    def apply(self, columns: Tensor, scratch: Scratch) -> Applied:
        basis = self.basis
        whole = None if basis is None else torch.cat([basis.chunk(i) for i in range(basis.count)])
        found = Directions(whole, self.norm)
        applied = apply_directions(found, columns, self.projection)
        return Applied(applied.product, applied.alignment_norm, applied.note, "cache")


def form_of(projection: Projection) -> str:
    """What is kept for a projector; `subspace` and `complement` share theirs."""
    if projection.projector == "approximate":
        return "panels"
    if projection.projector == "exact":
        return "directions exact"
    if projection.energy is None:
        return f"directions rank {projection.rank}"
    return f"directions energy {projection.energy!r}"


# ------------------------------------------------------------------------------------------ writing
@dataclass(frozen=True)
class ToKeep:
    """Tensors to write into an entry, by name, with the rows that are checked at once."""

    tensors: Mapping[str, tuple[Tensor, int]]
    metadata: Mapping[str, Any]

    def described(self) -> dict[str, NewTensor]:
        return {
            name: NewTensor(
                dtype=SAFETENSORS_DTYPES[tensor.dtype],
                shape=tuple(tensor.shape),
                size_bytes=tensor.nbytes,
                chunk_bytes=max(1, rows * tensor[0].nbytes if len(tensor) else 1),
            )
            for name, (tensor, rows) in self.tensors.items()
        }


def panels_to_keep(held: HeldPanels, norm: float, rounding: float) -> ToKeep:
    measured = {"norm": norm, "rounding": rounding}
    return ToKeep({"panels": (held.tensor, 1)}, {"form": "panels", **measured, **vars(held.layout)})


def gram_to_keep(gram: Tensor, norm: float, rounding: float) -> ToKeep:
    measured = {"norm": norm, "rounding": rounding}
    return ToKeep({"gram": (gram, GRAM_ROWS)}, {"form": "gram", **measured})


def directions_to_keep(found: Directions) -> ToKeep:
    tensors = {} if found.basis is None else {"basis": (found.basis.contiguous(), FACTOR_ROWS)}
    return ToKeep(tensors, {"form": "directions", "norm": found.norm, "rounding": 0.0})


# ------------------------------------------------------------------------------------------ reading
def kept_in(entry: Entry, projection: Projection) -> Kept:
    """What an entry holds. Raises KeyError, TypeError or ValueError where that is not an entry."""
    said = entry.metadata
    return _READERS[said["form"]](entry, float(said["norm"]), projection)


def _panels(entry: Entry, norm: float, projection: Projection) -> Kept:
    fields = ("d_out", "d_in", "width", "by_columns")
    layout = PanelLayout(**{field: entry.metadata[field] for field in fields})
    return KeptPanels(CachedPanels(layout, _rows(entry, "panels", 1)), norm)


def _gram(entry: Entry, norm: float, projection: Projection) -> Kept:
    return KeptGram(_rows(entry, "gram", GRAM_ROWS), norm)


def _directions(entry: Entry, norm: float, projection: Projection) -> Kept:
    has_basis = "basis" in entry.tensors
    basis = _rows(entry, "basis", FACTOR_ROWS) if has_basis else None
    return KeptDirections(basis, norm, projection)


def _rows(entry: Entry, name: str, rows: int) -> CheckedRows:
    return CheckedRows(entry, name, map_tensor(entry.descriptor, entry.tensors[name]), rows)


_READERS: Mapping[str, Callable[[Entry, float, Projection], Kept]] = {
    "panels": _panels,
    "gram": _gram,
    "directions": _directions,
}
