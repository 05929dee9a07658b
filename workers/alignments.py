"""Where a module's alignment comes from: the cache, or the two models' weights."""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from app.alignment.approximate import HELD_BYTES, scaled
from app.alignment.blocks import Scratch
from app.alignment.device import DeviceCache, DeviceGram, DeviceV
from app.alignment.difference import Difference, SquaredNorm
from app.alignment.gram import Tiling
from app.alignment.panel_products import apply_panels
from app.alignment.panels import hold, kept_bytes
from app.alignment.projection import Applied, DifferenceNotFinite, apply, apply_directions
from app.alignment.safety_module import SafetyModule, apply_safety
from app.alignment.subspace import directions, spectrum
from app.domain.alignment import Shaped
from app.domain.errors import NonFiniteTensor
from app.domain.method import Projection
from app.observe.watch import moved, watching
from app.storage.alignment_entry import DamagedEntry, Entry
from workers.checkpoints import ModelPair, read_tensor
from workers.kept import KeptGram, KeptPanels, directions_to_keep, form_of, kept_in, panels_to_keep
from workers.shelf import Shelf
from workers.sources import source_of

GRAM_SHARE = 1.25  # of the panels' bytes: what the tiles of a square module's Gram matrix come to


@dataclass(frozen=True)
class Alignments:
    """Applies the projectors of one pair of models."""

    models: ModelPair
    scratch: Scratch
    shelf: Shelf | None = None  # None keeps nothing on disk
    memory: DeviceCache | None = None  # of a worker with an accelerator, from job to job
    safety: Mapping[str, SafetyModule] = field(default_factory=dict)  # by Part.id

    def apply(self, module: Shaped, columns: Tensor, projection: Projection) -> Applied:
        """`C @ columns` for `columns` `(d_out, n)`, which may be several adapters' side by side.

        Raises NonFiniteTensor naming the model's tensor that holds NaN or infinity.
        """
        if projection.safety_module is not None:
            bases = self.safety[projection.safety_module].bases
            return apply_safety(bases.get(module.name), columns)
        v = self.models.difference(module)
        with self.naming_the_culprit(module.name):
            applied = self._applied(v, columns[: v.d_out], projection)
        return applied.beyond(columns, projection)

    def close(self) -> None:
        self.scratch.close()
        if self.shelf:
            self.shelf.close()

    @contextmanager
    def naming_the_culprit(self, module: str) -> Iterator[None]:
        """Raises NonFiniteTensor where the block finds that `V` is not finite."""
        try:
            yield
        except DifferenceNotFinite:
            raise _culprit(self.models, module) from None

    def _applied(self, v: Difference, columns: Tensor, projection: Projection) -> Applied:
        if not can_be_kept(v, projection):
            return apply(v, columns, projection, self.scratch)
        if found := self._in_memory(v, columns, projection):
            return found
        if self.shelf is None:
            return self._computed(v, columns, projection)
        return self._kept(v, columns, projection, self.shelf) or self._first(
            v, columns, projection, self.shelf
        )

    def _in_memory(self, v: Difference, columns: Tensor, projection: Projection) -> Applied | None:
        if self.memory is None or projection.projector != "approximate":
            return None
        found = self.memory.find(source_of(v))
        if found is None:
            return None
        watching().looked_up("device")
        return found.apply(columns)

    def _remember(self, v: Difference, given: DeviceV | DeviceGram) -> None:
        """For the next job, where there is a device to keep it on."""
        if self.memory is not None and (source := source_of(v)).settled:
            self.memory.keep(source, given)

    def _first(
        self, v: Difference, columns: Tensor, projection: Projection, shelf: Shelf
    ) -> Applied:
        """Compute and keep, unless another worker is at it: then wait, and take what it kept."""
        with shelf.turn(v, form_of(projection)):
            kept = self._kept(v, columns, projection, shelf)
            if kept is not None:
                return kept
            shelf.note_miss()
            return self._computed(v, columns, projection)

    def _kept(
        self, v: Difference, columns: Tensor, projection: Projection, shelf: Shelf
    ) -> Applied | None:
        while entry := shelf.find(v, *forms(v, projection)):
            with closing(entry):
                try:
                    applied = self._of_entry(v, entry, columns, projection)
                except (DamagedEntry, KeyError, TypeError, ValueError):
                    shelf.drop(entry)
                    continue
                shelf.note_hit(entry)
            return applied
        return None

    def _of_entry(
        self, v: Difference, entry: Entry, columns: Tensor, projection: Projection
    ) -> Applied:
        kept = kept_in(entry, projection)
        applied = kept.apply(columns, self.scratch)  # which has checked every byte
        if self.memory is not None and isinstance(kept, KeptPanels):
            self._remember(v, DeviceV(kept.layout, kept.stored.whole(self.scratch), kept.norm))
        if self.memory is not None and isinstance(kept, KeptGram):
            self._remember(v, DeviceGram(kept.tiles.whole(self.scratch), kept.norm))
        return applied

    def _computed(self, v: Difference, columns: Tensor, projection: Projection) -> Applied:
        moved("align", sum(math.prod(w.shape) * w.dtype.itemsize for w in (v.chat, v.base)))
        if projection.projector == "approximate":
            return self._approximate(v, columns)
        return self._directions(v, columns, projection)

    def _approximate(self, v: Difference, columns: Tensor) -> Applied:
        (panels, rounding), squares = hold(v, self.scratch), SquaredNorm()
        product = apply_panels(panels, columns, self.scratch, squares)
        norm = finite_norm(math.sqrt(squares.value), v)
        if norm:
            self._remember(v, DeviceV(panels.layout, panels.tensor, norm))
            if self.shelf:
                self.shelf.keep(v, "panels", panels_to_keep(panels, norm, rounding))
        return Applied(scaled(product, norm), norm)

    def _directions(self, v: Difference, columns: Tensor, projection: Projection) -> Applied:
        found = directions(spectrum(v), projection)
        if finite_norm(found.norm, v) and self.shelf:
            self.shelf.keep(v, form_of(projection), directions_to_keep(found))
        return apply_directions(found, columns, projection)


def forms(v: Difference, projection: Projection) -> tuple[str, ...]:
    """What may be kept for a projector, the fastest first."""
    form = form_of(projection)
    return ("gram tiles", form) if form == "panels" and gram_is_faster(v) else (form,)


def gram_is_faster(v: Difference) -> bool:
    """Read once instead of used twice; and a Gram matrix is in float32."""
    few_bytes = Tiling(v.d_out).size_bytes <= GRAM_SHARE * kept_bytes(v)
    return few_bytes and v.work_dtype == torch.float32


def can_be_kept(v: Difference, projection: Projection) -> bool:
    return projection.projector != "approximate" or kept_bytes(v) <= HELD_BYTES


def finite_norm(norm: float, v: Difference) -> float:
    if not math.isfinite(norm):
        raise DifferenceNotFinite(v.chat.name)
    return norm


def _culprit(models: ModelPair, module: str) -> NonFiniteTensor:
    """Which of the two models' weights holds the NaN or infinity."""

    for source, model in (("chat model", models.chat), ("base model", models.base)):
        weight = model.weight(module)
        for part in (weight, *weight.below):
            if not bool(torch.isfinite(read_tensor(part.descriptor, part.entry)).all()):
                return NonFiniteTensor(tensor=part.entry.name, source=source)
    return NonFiniteTensor(tensor=f"{module}.weight", source="difference of chat and base model")
