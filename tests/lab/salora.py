"""Does SaLoRA keep refusals? The same data, steps and seeds with and without its safety module.

`python -m tests.lab.salora --page docs/salora-lab.md`. Each cell is a training through the product
(safety module, kit, Trainer, export), measured by the product. Cells that are in the cache are not
trained again.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import torch

from app.alignment.kit import KIT_TENSORS, Kit
from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.demo.safety_world.language import Language
from app.demo.safety_world.world import (
    ADAPTERS,
    ALPHA,
    BATCH,
    RANK,
    TARGETS,
    Effort,
    SafetyWorld,
    make_safety_world,
)
from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.salora import Encoding, InitRecipe, SafetyModuleRecipe, TrainRecipe
from app.intake.manifest import read_manifest
from tests.lab.measuring import COMPUTE, measured, named, rows_of
from tests.lab.salora_page import write_page
from workers.encoding import encode_all
from workers.language_models import load_model, load_tokenizer
from workers.safety_module import make_safety_module
from workers.salora_export import ExportInput, export
from workers.salora_init import InitInput, make_kit
from workers.training import TrainInput, train

ENCODING = Encoding(max_length=64)
EFFORT = Effort()
RANKS, STARTS, RATES = (0, 16, 32), ("zero", "salora"), (1e-3, 3e-3)


@dataclass(frozen=True)
class Cell:
    """One training."""

    seed: int  # of the world and of the training
    adapter: str  # whose data
    learning_rate: float
    start: str
    safety_rank: int  # 0: without a safety module

    @property
    def file(self) -> str:
        return "-".join(map(str, asdict(self).values())) + ".json"


def cells(seeds: list[int], adapters: list[str]) -> Iterator[Cell]:
    for seed in seeds:
        for adapter, rate, start, rank in product(adapters, RATES, STARTS, RANKS):
            yield Cell(seed, adapter, rate, start, rank)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--adapters", nargs="+", default=list(ADAPTERS), choices=ADAPTERS)
    parser.add_argument("--cache", type=Path, default=Path(".lab"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--no-training", action="store_true", help="write the page alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed in [] if given.no_training else given.seeds:
        world = make_safety_world(given.cache, Language(seed), EFFORT)
        for cell in cells([seed], given.adapters):
            told = given.cache / "salora" / cell.file
            if not told.exists():
                _keep(told, run(cell, world, kit_folder(cell, world, given.cache)))
                print(told.name, flush=True)
    if given.page:
        write_page(list(results(given)), given.page)


def results(given: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Of each seed and adapter whose cells have all been run."""
    for seed, adapter in product(given.seeds, given.adapters):
        files = [given.cache / "salora" / cell.file for cell in cells([seed], [adapter])]
        if all(file.exists() for file in files):
            yield from (json.loads(file.read_text()) for file in files)


def _keep(path: Path, result: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(result))
    part.replace(path)


def safety_module(world: SafetyWorld, cache: Path) -> SafetyModule:
    """Of the largest rank; smaller ones are its first directions."""
    out = cache / f"safety-module-{world.language.seed}"
    if not (out / SAFETY_MODULE_FILE).exists():
        out.mkdir(exist_ok=True)
        recipe = SafetyModuleRecipe("safety", TARGETS, max(RANKS), ENCODING)
        rows = rows_of(world.data("safety"))
        make_safety_module(named(world.chat), rows, recipe, out, COMPUTE, quiet)
    return SafetyModule.load(out / SAFETY_MODULE_FILE)


def kit_folder(cell: Cell, world: SafetyWorld, cache: Path) -> Path:
    """A kit with all directions of the safety module."""
    out = cache / f"kit-{cell.seed}-{cell.adapter}-{cell.start}"
    if not (out / KIT_TENSORS).exists():
        out.mkdir(exist_ok=True)
        data = world.data(f"task_{cell.adapter}")
        task = ("task", rows_of(data)) if cell.start == "salora" else (None, None)
        recipe = InitRecipe(
            "module", task[0], RANK, float(ALPHA), task_rank=32,
            initialisation=cell.start, encoding=ENCODING,
        )  # fmt: skip
        module = safety_module(world, cache)
        make_kit(InitInput(named(world.chat), module, task[1], recipe), out, COMPUTE, quiet)
    return out


def first_directions(kit: Kit, rank: int) -> Kit:
    """With so many of the kit's directions; none is no kit that could be loaded from a file."""
    modules = {name: replace(m, safety=m.safety[:, :rank]) for name, m in kit.modules.items()}
    return Kit(kit.config, modules)


def run(cell: Cell, world: SafetyWorld, folder: Path) -> dict[str, object]:
    """As `train_and_export` does it, on a kit in memory."""
    kit, chat = first_directions(Kit.load(folder), cell.safety_rank), named(world.chat)
    with TemporaryDirectory() as name:
        work, out = Path(name), Path(name) / "out"
        out.mkdir()
        data = world.data(f"task_{cell.adapter}")
        tokenizer, recipe = load_tokenizer(chat), _recipe(cell, data)
        rows = encode_all(rows_of(data), tokenizer, ENCODING)
        model = load_model(chat, "auto", COMPUTE.device)
        given = TrainInput(model, kit, folder, rows, recipe, tokenizer.pad_token_id)
        trained = train(given, work / "training", quiet, quiet)
        export(_export_input(trained.folder, work, kit), out, quiet)
        table = measured(world, {"trained": out}, "held_out", work).table
    return {
        **asdict(cell),
        "loss": trained.training.curve[-1].loss,
        "steps": trained.training.steps,
        "table": [asdict(row) for row in table],
    }


def _export_input(trained: Path, work: Path, kit: Kit) -> ExportInput:
    folder = work / "adapter"
    folder.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        copyfile(trained / name, folder / name)
    return ExportInput(folder, read_manifest(folder), kit, None)


def _recipe(cell: Cell, data: Path) -> TrainRecipe:
    """So many epochs that the steps are those of the world's own adapters."""
    a_epoch = -(-len(rows_of(data)) // BATCH)
    return TrainRecipe(
        "kit", "task", EFFORT.adapter_steps / a_epoch, cell.learning_rate, BATCH, seed=cell.seed,
        checkpoint_steps=100_000, encoding=ENCODING,
    )  # fmt: skip


def quiet(*_: object) -> None: ...


if __name__ == "__main__":
    main()
