"""The main job: load -> align -> project -> save, module by module. Knows no Celery.

Adapters of one pair of models go together: their `B` columns stand side by side, and each module's
alignment is read once for all of them.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from app.alignment.blocks import Scratch, torch_threads
from app.alignment.device import DeviceCache
from app.alignment.safety_module import SafetyModule
from app.domain.adapter import module_order
from app.domain.errors import AdapterSafetyError
from app.domain.report import Report
from app.observe.context import bound
from app.observe.watch import modules_span, phase
from app.storage.alignment_cache import Pair
from workers.alignments import Alignments
from workers.checkpoints import open_pair
from workers.run import NamedCheckpoint, OnModule, PatchInput, Progress, Run
from workers.shelf import Shelf

T = TypeVar("T")
Shelves = Callable[[Pair], Shelf]
MODULES_A_SPAN = 32  # of a trace, because an adapter may have 50,000 modules

__all__ = ["NamedCheckpoint", "OnModule", "PatchInput", "Progress", "Run", "patch", "score"]


def patch(
    given: PatchInput,
    out: Path,
    *,
    threads: int,
    on_module: OnModule,
    shelves: Shelves | None = None,
) -> Report:
    """Write the patched weights into the folder `out` and return the report.

    `on_module` is called after each module and may raise (`Stopped`) to end the work. Raises
    NonFiniteTensor, naming the tensor, for NaN or infinity in the adapter or in a model.
    """
    return _alone(Run(given, out, "patch", on_module), threads, shelves)


def score(
    given: PatchInput,
    work: Path,
    *,
    threads: int,
    on_module: OnModule,
    shelves: Shelves | None = None,
) -> Report:
    """The report that `patch` would give, and nothing else; `work` is for a scratch file."""
    return _alone(Run(given, work, "score", on_module), threads, shelves)


def _alone(run: Run, threads: int, shelves: Shelves | None) -> Report:
    examine([run], threads=threads, shelves=shelves)
    return run.result()


def examine(
    runs: Sequence[Run],
    *,
    threads: int,
    shelves: Shelves | None = None,
    memory: DeviceCache | None = None,
) -> None:
    """Bring each run to its report or its fault, each as soon as it is through. All are of the same
    two models.

    `shelves` gives the pair's place in the alignment cache; without it everything is computed.
    """
    given = runs[0].given
    chat, base = given.chat, given.base or given.chat
    with (
        ExitStack() as files,
        torch_threads(threads),
        open_pair(chat.checkpoint, base.checkpoint) as models,
    ):
        for run in runs:
            files.enter_context(closing(run))
        shelf = shelves(pair_of(base, chat)) if shelves and given.base else None
        alignments = Alignments(models, Scratch(), shelf, memory, _safety(runs))
        files.enter_context(closing(alignments))
        _walk(runs, alignments)


def _safety(runs: Sequence[Run]) -> dict[str, SafetyModule]:
    given = ((run.given.method.safety_module, run.given.safety) for run in runs)
    return {part: module for part, module in given if part and module}


def pair_of(base: NamedCheckpoint, chat: NamedCheckpoint) -> Pair:
    return Pair(base.checkpoint.digest, chat.checkpoint.digest, base.id, chat.id)


def _walk(runs: Sequence[Run], alignments: Alignments) -> None:
    going = list(runs)
    names = sorted({name for run in runs for name in run.modules}, key=module_order)
    for begin in range(0, len(names), MODULES_A_SPAN):
        some = names[begin : begin + MODULES_A_SPAN]
        with modules_span(some[0], len(some)):
            for name in some:
                going = _step(name, going, alignments)


def _step(name: str, going: Sequence[Run], alignments: Alignments) -> list[Run]:
    """One module; the runs that are not through with it."""
    for group in _groups(name, going):
        with bound(module=name):
            _module(name, group, alignments)
    for run in (run for run in going if run.is_through):
        _end(run, alignments)
    return [run for run in going if not run.is_through]


def _end(run: Run, alignments: Alignments) -> None:
    with phase("project"):
        _guarded(run, partial(run.take_full_weights, alignments))
    with phase("save"):
        _guarded(run, run.finish)
    run.close()
    run.on_end(run)


def _groups(name: str, runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs that have the module and go on, by what they must share to be stacked."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        if name in run.modules and run.fault is None:
            groups.setdefault(run.shares(name), []).append(run)
    yield from groups.values()


def _module(name: str, runs: Sequence[Run], alignments: Alignments) -> None:
    """One module of runs that share a projector: their columns side by side, `V` read once."""
    with phase("read"):
        given = [(run, _guarded(run, partial(run.columns, name))) for run in runs]
    stacked = [(run, columns) for run, columns in given if columns is not None]
    if not stacked:
        return
    first, _ = stacked[0]
    module, projection = first.modules[name], first.given.method.projection
    try:
        with phase("align"):
            applied = alignments.apply(
                module, torch.cat([columns for _, columns in stacked], 1), projection
            )
    except AdapterSafetyError as error:  # of the models, so of every run
        for run, _ in stacked:
            run.fault = error
        return
    begin = 0
    for run, columns in stacked:
        part = applied.part(slice(begin, begin := begin + columns.shape[1]))
        with phase("project"):
            _guarded(run, partial(run.take, name, part, alignments.models))


def _guarded(run: Run, step: Callable[[], T]) -> T | None:
    """The step's result, None where it went wrong, which ends this run alone."""
    if run.fault is not None:
        return None
    try:
        return step()
    except AdapterSafetyError as error:
        run.fault = error
        return None
