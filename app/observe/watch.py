"""What a job's work tells of itself while it goes on: phases with their seconds and bytes, modules
by decision, finds in the alignment cache. A worker counts them; elsewhere nobody listens.

Standard library only, because the command line's local mode runs the same pipeline.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, Protocol, get_args

from app.observe.traces import span

Phase = Literal["models", "fetch", "read", "align", "project", "save", "store", "measure", "salora"]
"""`models`: find the models, download what is missing. `fetch`, `store`: from and to the artifact
store. `read`: the adapter's tensors. `align`: models' weights or cache, and the product with the
adapter's columns. `project`: decide and change. `save`: write the result's files. `measure`: let
models answer. `salora`: everything else of SaLoRA's jobs."""
PHASES: tuple[Phase, ...] = get_args(Phase)
FINE: frozenset[Phase] = frozenset({"read", "align", "project"})
"""They change many times a module: a span of modules adds them up."""

CacheResult = Literal["hit", "device", "miss"]
"""Found on disk, found in the device's memory, or computed."""
CacheMove = Literal["read", "written"]
CACHE_RESULTS: tuple[CacheResult, ...] = get_args(CacheResult)
CACHE_MOVES: tuple[CacheMove, ...] = get_args(CacheMove)
Outcome = Literal["succeeded", "failed", "cancelled", "released", "lost"]
"""Of one worker's turn at a job: `released` went back to the queue, `lost` to another worker."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Watch(Protocol):
    """Who listens."""

    def took(self, phase: Phase, seconds: float) -> None: ...
    def moved(self, phase: Phase, count: int) -> None: ...
    def decided(self, decision: str) -> None: ...
    def looked_up(self, result: CacheResult) -> None: ...
    def kept(self, move: CacheMove, count: int) -> None: ...
    def ended(self, kind: str, outcome: Outcome, seconds: float, problem: str | None) -> None: ...


class _Nobody:
    def took(self, phase: Phase, seconds: float) -> None: ...
    def moved(self, phase: Phase, count: int) -> None: ...
    def decided(self, decision: str) -> None: ...
    def looked_up(self, result: CacheResult) -> None: ...
    def kept(self, move: CacheMove, count: int) -> None: ...
    def ended(self, kind: str, outcome: Outcome, seconds: float, problem: str | None) -> None: ...


class _State(threading.local):
    """Of each thread: the phases it is in, and what it has spent in each."""

    def __init__(self) -> None:
        self.within: list[Phase] = []
        self.since = 0.0  # when the innermost began or went on
        self.spent: Counter[Phase] = Counter()


_state = _State()
_watch: Watch = _Nobody()


def listen(watch: Watch) -> None:
    """From here on, in this process."""
    global _watch
    _watch = watch


def watching() -> Watch:
    return _watch


@contextmanager
def phase(name: Phase) -> Iterator[None]:
    """The time of the block, but for phases within it: they add up to what a job took."""
    _account()
    _state.within.append(name)
    try:
        with nullcontext() if name in FINE else span(name):
            yield
    finally:
        _account()
        _state.within.pop()


def moved(name: Phase, count: int) -> None:
    """So many bytes were read or written in a phase."""
    _watch.moved(name, count)


@contextmanager
def modules_span(first: str, count: int) -> Iterator[None]:
    """A span of some modules, with the seconds that their phases took."""
    before = dict(_state.spent)
    with span("modules", first=first, modules=count) as one:
        yield
        for name in sorted(FINE):
            one.note(f"{name}_s", round(_state.spent[name] - before.get(name, 0.0), 6))


def _account() -> None:
    """What has passed since the last change belongs to the innermost phase."""
    now = time.monotonic()
    if _state.within:
        own, seconds = _state.within[-1], now - _state.since
        _state.spent[own] += seconds  # type: ignore[assignment] # because Counter is said to hold integers
        _watch.took(own, seconds)
    _state.since = now
