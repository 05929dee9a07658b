"""Alignments made before an adapter needs them: what is smallest to keep, and nothing else."""

import math
from contextlib import closing

from app.alignment.blocks import Scratch
from app.alignment.difference import Difference, SquaredNorm
from app.alignment.gram import gram
from app.alignment.panels import add_squares, hold
from app.alignment.subspace import directions, spectrum
from app.domain.alignment import Shaped, Warmed
from app.domain.method import Projection
from app.domain.report import ZERO_ALIGNMENT
from app.storage.alignment_entry import Entry
from workers.alignments import Alignments, can_be_kept, finite_norm, forms, gram_is_faster
from workers.kept import ToKeep, directions_to_keep, form_of, gram_to_keep, panels_to_keep
from workers.shelf import Shelf

NO_CACHE = "this worker keeps no alignments (ADAPTER_SAFETY_ALIGNMENT_CACHE_BYTES)"
TOO_LARGE = "the module is too large to be kept"
NO_ROOM = "the alignment cache has no room for it, or cannot be written"


def warm(alignments: Alignments, module: Shaped, projection: Projection) -> Warmed:
    """Have one module kept, by whoever computes it first.

    Raises NonFiniteTensor naming the model's tensor that holds NaN or infinity.
    """
    v, shelf = alignments.models.difference(module), alignments.shelf
    if shelf is None:
        return _not_kept(module.name, v, form_of(projection), NO_CACHE)
    if not can_be_kept(v, projection):
        return _not_kept(module.name, v, form_of(projection), TOO_LARGE)
    with alignments.naming_the_culprit(module.name):
        return _found(module.name, v, projection, shelf) or _first(
            module.name, v, projection, shelf, alignments.scratch
        )


def _first(
    name: str, v: Difference, projection: Projection, shelf: Shelf, scratch: Scratch
) -> Warmed:
    with shelf.turn(v, form_of(projection)):
        found = _found(name, v, projection, shelf)
        if found is not None:
            return found
        shelf.note_miss()
        form, computed = _computed(v, projection, scratch)
        if computed is None:
            return _not_kept(name, v, form, ZERO_ALIGNMENT)
        if not shelf.keep(v, form, computed):
            return _not_kept(name, v, form, NO_ROOM)
        return _of_computed(name, v, computed)


def _found(name: str, v: Difference, projection: Projection, shelf: Shelf) -> Warmed | None:
    """The fastest form of it: what a job has kept in passing may be a slower one."""
    entry = shelf.find(v, forms(v, projection)[0])
    if entry is None:
        return None
    with closing(entry):
        shelf.note_hit(entry)
        return _of_entry(name, v, entry)


def _computed(v: Difference, projection: Projection, scratch: Scratch) -> tuple[str, ToKeep | None]:
    """The form and what to keep; None where `V` is zero. Raises DifferenceNotFinite."""
    if projection.projector != "approximate":
        found = directions(spectrum(v), projection)
        norm = finite_norm(found.norm, v)
        return form_of(projection), directions_to_keep(found) if norm else None
    (panels, rounding), squares = hold(v, scratch), SquaredNorm()
    add_squares(panels.tensor, squares, scratch)
    norm = finite_norm(math.sqrt(squares.value), v)
    if not norm:
        return "panels", None
    if gram_is_faster(v):
        return "gram tiles", gram_to_keep(gram(panels, scratch), norm, rounding)
    return "panels", panels_to_keep(panels, norm, rounding)


def _of_entry(name: str, v: Difference, entry: Entry) -> Warmed:
    return Warmed(
        module=name,
        shape=(v.d_out, v.d_in),
        form=str(entry.metadata["form"]),
        dtype=next((tensor.dtype for tensor in entry.tensors.values()), None),
        size_bytes=sum(tensor.size_bytes for tensor in entry.tensors.values()),
        rounding=entry.metadata["rounding"],
        source="cache",
    )


def _of_computed(name: str, v: Difference, kept: ToKeep) -> Warmed:
    tensors = kept.described().values()
    return Warmed(
        module=name,
        shape=(v.d_out, v.d_in),
        form=str(kept.metadata["form"]),
        dtype=next((tensor.dtype for tensor in tensors), None),
        size_bytes=sum(tensor.size_bytes for tensor in tensors),
        rounding=kept.metadata["rounding"],
        source="computed",
    )


def _not_kept(name: str, v: Difference, form: str, note: str) -> Warmed:
    return Warmed(name, (v.d_out, v.d_in), form, None, 0, None, None, note)
