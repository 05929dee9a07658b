"""Which way of patching keeps refusals and skill? Every way, on several worlds, measured.

`python -m tests.lab.proof --seeds 0 1 2 --page docs/proof.md`. The rows are those of
`adapter-safety demo --safety`, with a longer search, and adapters that were trained with SaLoRA.
What is in the cache is not made again: each seed's and adapter's rows are kept one by one.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from app.alignment.safety_module import SafetyModule
from app.demo.safety_table import (
    AdapterTable,
    Search,
    TableRow,
    made_safety_module,
    row_from_json,
    row_of,
)
from app.demo.safety_world.language import Language
from app.demo.safety_world.world import ADAPTERS, SafetyWorld, make_safety_world
from app.demo.world import be_quiet
from app.domain.evaluation import CHAT
from app.domain.measured import Cell, Drift, Mean, Rate
from tests.lab.measuring import measured
from tests.lab.proof_page import SEEN, write_page
from tests.lab.salora import EFFORT, kit_folder, run
from tests.lab.salora import Cell as Training

RATE, START = 1e-3, "zero"  # the worlds' own adapters were trained so
SAFETY_RANKS = (0, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=Path(".lab"))
    parser.add_argument("--evaluations", type=int, default=Search().evaluations)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    be_quiet()
    torch.set_num_threads(1)
    search = Search(evaluations=given.evaluations)
    rows = [row for seed in given.seeds for row in of_seed(seed, given.cache, search)]
    if given.page:
        write_page(rows, search, given.page)


def of_seed(seed: int, cache: Path, search: Search) -> Iterator[TableRow]:
    world = make_safety_world(cache, Language(seed), EFFORT)
    yield from kept(cache / "proof" / f"{seed}-seen.json", lambda: [seen(world)])
    safety = made_safety_module(world, cache / f"safety-module-{seed}")
    for adapter in ADAPTERS:
        yield from of_adapter(world, adapter, safety, cache, search)


def seen(world: SafetyWorld) -> TableRow:
    """The chat model on the things of its own alignment."""
    with TemporaryDirectory() as work:
        table = measured(world, {}, "seen", Path(work)).table
    return row_of(table, (world.language.seed, CHAT, SEEN))


def of_adapter(
    world: SafetyWorld, adapter: str, safety: SafetyModule, cache: Path, search: Search
) -> Iterator[TableRow]:
    """The chat model's row comes with each adapter's."""
    seed, table = world.language.seed, AdapterTable(world, adapter, safety, search)
    folder = cache / "proof" / f"{seed}-{adapter}"
    yield from kept(folder / "unsearched.json", table.unsearched)
    for family in search.families:
        file = folder / f"{family}-{search.min_refusal:g}-{search.evaluations}.json"
        yield from kept(file, lambda family=family: [table.searched(family)])
    for rank in SAFETY_RANKS:
        training = Training(seed, adapter, RATE, START, rank)
        yield trained(training, world, cache)


def kept(file: Path, make: Callable[[], Sequence[TableRow]]) -> list[TableRow]:
    """From the file, which is written where it is not there."""
    if not file.exists():
        _write(file, [asdict(row) for row in make()])
        print(file, flush=True)
    return [row_from_json(found) for found in json.loads(file.read_text())]


def trained(training: Training, world: SafetyWorld, cache: Path) -> TableRow:
    """An adapter of the same task, trained by SaLoRA's machinery; the cache is the experiment's."""
    file = cache / "salora" / training.file
    if not file.exists():
        _write(file, run(training, world, kit_folder(training, world, cache)))
        print(file, flush=True)
    table = json.loads(file.read_text())["table"]
    cells = [_cell(found) for found in table if found["subject"] == "trained"]
    way = f"trained, r_s {training.safety_rank}"
    setting = "SaLoRA" if training.safety_rank else "the same trainer without a safety module"
    return row_of(cells, (training.seed, training.adapter, way), setting)


def _cell(found: dict[str, object]) -> Cell:
    kinds = {"rate": Rate, "given": Rate, "loss": Mean, "drift": Drift}
    read = {name: kind(**found[name]) for name, kind in kinds.items() if found[name]}
    return Cell(**{**found, **read})


def _write(path: Path, found: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(found))
    part.replace(path)


if __name__ == "__main__":
    main()
