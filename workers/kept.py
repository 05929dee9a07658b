"""What the alignment cache keeps of one `V`, as tensors: panels, a Gram matrix, or directions."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from app.alignment import numpy_products
from app.alignment.approximate import scaled
from app.alignment.blocks import Scratch
from app.alignment.gram import Tiling, apply_gram
from app.alignment.panel_products import apply_panels
from app.alignment.panels import HeldPanels, PanelLayout
from app.alignment.projection import Applied, apply_directions
from app.alignment.subspace import Directions
from app.alignment.threads import share
from app.domain.adapter import TensorEntry
from app.domain.errors import ArtifactCorrupt
from app.domain.method import Projection
from app.storage.alignment_entry import DamagedEntry, Entry, NewTensor
from workers.checkpoints import TORCH_DTYPES, as_bytes, map_tensor, read_exactly

SAFETENSORS_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
FACTOR_ROWS = 256  # of U_k, in a chunk
GRAM_TILES = 2  # in a chunk: 2 MiB


class Kept(Protocol):
    """Something kept of `V` that a projector can be applied with. Raises DamagedEntry."""

    def apply(self, columns: Tensor, scratch: Scratch) -> Applied:
        """`C @ columns`."""


@dataclass
class Checked:
    """A tensor in an entry; its bytes are checked before they are used, by every job anew."""

    entry: Entry
    name: str
    size: int  # of its first axis, in each chunk with a digest of its own
    _mapped: Tensor | None = None  # once all of it has been checked

    @property
    def stored(self) -> TensorEntry:
        return self.entry.tensors[self.name]

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.stored.dtype]

    @property
    def count(self) -> int:
        """Chunks."""
        return -(-self.stored.shape[0] // self.size)

    def take(self, i: int, scratch: Scratch) -> Tensor:
        """The `i`-th chunk, read into the scratch memory. Raises DamagedEntry."""
        length, *others = self.stored.shape
        first, end = i * self.size, min(length, (i + 1) * self.size)
        chunk = scratch.take("chunk", (end - first, *others), self.dtype)
        offset = self.stored.begin + first * (self.stored.size_bytes // length)
        with self._as_damage():
            read_exactly(self.entry.descriptor, offset, chunk)
        self.entry.check(self.name, i, as_bytes(chunk))
        return chunk

    def whole(self, scratch: Scratch) -> Tensor:
        """All of it, mapped, its chunks checked side by side. Raises DamagedEntry."""
        if self._mapped is None:
            self._mapped = self._all_checked(scratch)
        return self._mapped

    def _all_checked(self, scratch: Scratch) -> Tensor:
        with self._as_damage():
            tensor = map_tensor(self.entry.descriptor, self.stored)

        def check(thread: int, left: Iterator[int]) -> None:
            for i in left:
                chunk = tensor[i * self.size : (i + 1) * self.size]
                self.entry.check(self.name, i, as_bytes(chunk))

        share(check, self.count, scratch)
        return tensor

    @contextmanager
    def _as_damage(self) -> Iterator[None]:
        try:
            yield
        except (ArtifactCorrupt, OSError) as error:
            raise DamagedEntry(f"{self.entry.path.name}: {self.name}: {error}") from None


@dataclass(frozen=True)
class KeptPanels:
    layout: PanelLayout
    stored: Checked
    norm: float

    def apply(self, columns: Tensor, scratch: Scratch) -> Applied:
        self.layout.check(self.stored.stored.shape)
        if numpy_products.chosen():
            product = numpy_products.apply_panels(self.layout, self.stored, columns, scratch)
        else:
            panels = HeldPanels(self.layout, self.stored.whole(scratch))
            product = apply_panels(panels, columns, scratch)
        return Applied(scaled(product, self.norm), self.norm, source="cache")


@dataclass(frozen=True)
class KeptGram:
    tiles: Checked  # of V V^T, float32
    norm: float

    def apply(self, columns: Tensor, scratch: Scratch) -> Applied:
        if numpy_products.chosen():
            tiling = Tiling(len(columns))
            tiling.check(self.tiles.stored.shape)
            product = numpy_products.apply_gram(tiling, self.tiles, columns, scratch)
        else:
            product = apply_gram(self.tiles.whole(scratch), columns)
        return Applied(scaled(product, self.norm), self.norm, source="cache")


@dataclass(frozen=True)
class KeptDirections:
    basis: Checked | None  # U_k, (d_out, k) float64
    norm: float
    projection: Projection

    def apply(self, columns: Tensor, scratch: Scratch) -> Applied:
        found = Directions(None if self.basis is None else self.basis.whole(scratch), self.norm)
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
    return ToKeep({"gram": (gram, GRAM_TILES)}, {"form": "gram", **measured})


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
    return KeptPanels(layout, _tensor(entry, "panels", 1), norm)


def _gram(entry: Entry, norm: float, projection: Projection) -> Kept:
    return KeptGram(_tensor(entry, "gram", GRAM_TILES), norm)


def _directions(entry: Entry, norm: float, projection: Projection) -> Kept:
    has_basis = "basis" in entry.tensors
    basis = _tensor(entry, "basis", FACTOR_ROWS) if has_basis else None
    return KeptDirections(basis, norm, projection)


def _tensor(entry: Entry, name: str, rows: int) -> Checked:
    return Checked(entry, name, rows)


_READERS: Mapping[str, Callable[[Entry, float, Projection], Kept]] = {
    "panels": _panels,
    "gram": _gram,
    "directions": _directions,
}
