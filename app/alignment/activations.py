"""One sweep over a model's inputs: each module's statistics at chosen token positions.

Hooks see every module's input in one forward pass; modules that read the same tensor (q, k and v,
or gate and up) share one second moment.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from app.alignment.moments import Moments, SecondMoment, Sketch, Subspace, sketch_width

F64_BYTES = 8


def weight_of(module: nn.Module) -> Tensor:
    """`(d_out, d_in)` of a linear module; GPT-2's `Conv1D` stores the transpose. Raises TypeError
    for any other."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        raise TypeError(f"{type(module).__name__} has no weight matrix")
    if type(module).__name__ == "Conv1D":
        return weight.detach().T
    if isinstance(module, nn.Linear):
        return weight.detach()
    raise TypeError(f"{type(module).__name__} is not a linear module")


class NoPositions(ValueError):
    """A module's inputs do not say which tokens they are of."""

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(reason)
        self.module = module


@dataclass
class _Input:
    """What one module reads. Its last input is not kept alive: those of all modules together would
    be as much as a training keeps."""

    moment: Moments
    owner: str | None = None  # the module whose moment this one shares
    last: ref[Tensor] | None = None  # the tensor itself: whoever reads the same one can share

    def reads(self, hidden: Tensor) -> bool:
        return self.last is not None and self.last() is hidden


@dataclass
class Sweep:
    """Statistics of `modules` (full name -> linear module of one model).

    Second moments are exact. Those that would go beyond `budget_bytes`, all together, are sketches
    instead (`sketched` has the names).
    """

    modules: Mapping[str, nn.Module]
    rank: int
    budget_bytes: int
    sketched: list[str] = field(default_factory=list)
    _inputs: dict[str, _Input] = field(default_factory=dict)
    _mask: Tensor | None = None
    _bytes: int = 0

    @contextmanager
    def watching(self, mask: Tensor) -> Iterator[None]:
        """Take the inputs of the forward pass within at the positions where `mask` `(batch,
        tokens)` is true. Raises NoPositions where a module does not see whole sequences."""
        self._mask = mask.reshape(-1)
        handles = [
            module.register_forward_pre_hook(self._hook(name))
            for name, module in self.modules.items()
        ]
        try:
            with torch.no_grad():
                yield
        finally:
            self._mask = None
            for handle in handles:
                handle.remove()
            for seen in self._inputs.values():
                seen.last = None

    def subspace(self, name: str) -> Subspace:
        """Raises ValueError where the module had no input, or gave only zeros."""
        seen = self._inputs.get(name)
        if seen is None:
            raise ValueError("the forward pass does not use it")
        return seen.moment.subspace(weight_of(self.modules[name]), self.rank)

    def _hook(self, name: str) -> Any:
        def take(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._take(name, module, args[0])

        return take

    def _take(self, name: str, module: nn.Module, hidden: Tensor) -> None:
        seen = self._inputs.get(name) or self._first(name, module, hidden)
        seen.last = ref(hidden)
        if seen.owner is None:
            seen.moment.add(self._chosen(name, hidden))
        elif not self._inputs[seen.owner].reads(hidden):
            raise NoPositions(name, f"it does not always read what {seen.owner} reads")

    def _chosen(self, name: str, hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        if self._mask is None or rows.shape[0] != self._mask.shape[0]:
            raise NoPositions(name, "it does not see whole sequences")
        return rows[self._mask.to(rows.device)]

    def _first(self, name: str, module: nn.Module, hidden: Tensor) -> _Input:
        """How this module's statistics are kept, decided when its first input comes."""
        found = self._shared(hidden) or _Input(self._moment(name, weight_of(module)))
        return self._inputs.setdefault(name, found)

    def _shared(self, hidden: Tensor) -> _Input | None:
        for name, seen in self._inputs.items():
            if seen.reads(hidden) and seen.owner is None and seen.moment.of_inputs:
                return _Input(seen.moment, owner=name)
        return None

    def _moment(self, name: str, weight: Tensor) -> Moments:
        d_out, d_in = weight.shape
        d = min(d_out, d_in)
        size = F64_BYTES * d * d
        smaller = 2 * F64_BYTES * d_out * sketch_width(self.rank)
        if self._bytes + size > self.budget_bytes and smaller < size:
            self._bytes += smaller
            self.sketched.append(name)
            return Sketch(name, weight, self.rank)
        self._bytes += size
        return SecondMoment(d, weight.device, None if d_in <= d_out else weight)
