"""The patched weights file, made from the original by replacing byte ranges.

Every candidate `C B` goes to a sparse scratch file at B's own place, so memory stays flat however
large the adapter is. When the modules are chosen, their ranges are copied over a copy of the
original: every other byte stays as it came.
"""

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.domain.adapter import TensorEntry
from workers.checkpoints import (
    TORCH_DTYPES,
    as_bytes,
    finite,
    part_of,
    read_exactly,
    read_tensor,
)

COPIED_BYTES = 16 << 20  # at once; whole elements of every dtype


@dataclass(frozen=True)
class PatchedWeights:
    """The original weights file, open, and the scratch file with the candidates."""

    original: Path
    source: int  # descriptor of the original
    scratch: int  # descriptor

    def propose(self, place: TensorEntry, c_b: Tensor) -> float | None:
        """Keep `c_b`, rounded once to the adapter's own dtype; the relative error of that.

        None where it is too large for that dtype; `publish` refuses it if it is chosen.
        """
        rounded = c_b.to(TORCH_DTYPES[place.dtype])
        write_exactly(self.scratch, _offset(place), rounded)
        norm = torch.linalg.vector_norm
        whole = float(norm(c_b, dtype=torch.float64))
        error = float(norm(rounded.double() - c_b.double())) / whole if whole else 0.0
        return error if math.isfinite(error) else None

    def propose_bytes(self, place: TensorEntry, offset: int, part: Tensor) -> None:
        """Keep a part of a candidate, rounded already, that begins `offset` bytes into it."""
        write_exactly(self.scratch, _offset(place) + offset, part)

    def publish(
        self, chosen: Iterable[TensorEntry], out: Path, dropped: Sequence[TensorEntry] = ()
    ) -> None:
        """Write the original with the `chosen` tensors replaced by their candidates, and without
        the `dropped` ones.

        Raises NonFiniteTensor where `C B` was too large for the adapter's dtype.
        """
        shutil.copyfile(self.original, out)
        with opened(out, os.O_RDWR) as target:
            for _, places in groupby(chosen, lambda place: place.begin):  # because experts share B
                self._replace(target, list(places))
            os.fsync(target)
        if dropped:
            _drop(out, {entry.name for entry in dropped})

    def _replace(self, target: int, places: Sequence[TensorEntry]) -> None:
        if places[0].part is None:
            self._copy(target, places[0])
        else:
            self._replace_parts(target, places)

    def _copy(self, target: int, place: TensorEntry) -> None:
        """One tensor's candidate, which may be as large as a vocabulary."""
        dtype = TORCH_DTYPES[place.dtype]
        for begin in range(place.begin, place.end, COPIED_BYTES):
            size = min(COPIED_BYTES, place.end - begin)
            part = torch.empty(size // dtype.itemsize, dtype=dtype)
            read_exactly(self.scratch, begin, part)
            write_exactly(target, begin, finite(part, place.label, "patched adapter"))

    def _replace_parts(self, target: int, places: Sequence[TensorEntry]) -> None:
        """One tensor's experts; the columns of those that were not chosen stay."""
        whole = read_tensor(self.source, places[0].whole)
        for place in places:
            candidate = torch.empty(place.shape, dtype=whole.dtype)
            read_exactly(self.scratch, _offset(place), candidate)
            finite(candidate, place.label, "patched adapter")
            part_of(whole, place.part).copy_(candidate)
        write_exactly(target, places[0].begin, whole)


def _offset(place: TensorEntry) -> int:
    """Where in the scratch file a candidate is: the experts of one tensor lie one after another."""
    part = place.part
    return place.begin + (part.index * place.size_bytes // part.count if part else 0)


def _drop(path: Path, names: Set[str]) -> None:
    """Write the file again without these tensors."""
    kept = path.with_name(f"{path.name}.kept")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        save_file({n: file.get_tensor(n) for n in file.keys() if n not in names}, kept, metadata)  # noqa: SIM118
    kept.replace(path)


@contextmanager
def patched_weights(original: Path, work: Path) -> Iterator[PatchedWeights]:
    """Open `original`, with a scratch file in the folder `work` that is gone afterwards."""
    scratch = work / "candidates.scratch"
    try:
        with (
            opened(original, os.O_RDONLY) as source,
            opened(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor,
        ):
            yield PatchedWeights(original, source, descriptor)
    finally:
        scratch.unlink(missing_ok=True)


def write_exactly(descriptor: int, offset: int, tensor: Tensor) -> None:
    """Write a tensor's bytes at `offset`, all of them."""
    view = as_bytes(tensor.contiguous())
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A file descriptor that is closed afterwards."""
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
