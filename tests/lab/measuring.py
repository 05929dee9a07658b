"""What the experiments share: adapters of a safety world, measured by the product itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copyfile

import torch

from app.demo.safety_world.world import SafetyWorld
from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.evaluation import FrontierRecipe, Judging, SetRole, Sets
from app.domain.measured import EvaluationReport, FrontierReport, SubjectUse
from app.domain.method import Method
from app.domain.salora import Encoding
from app.intake.checkpoint import read_checkpoint
from app.intake.dataset_rows import read_rows
from app.intake.manifest import read_manifest
from workers.compute import Compute
from workers.measure.evaluate import EvaluateInput, Measurand, evaluate
from workers.measure.frontier import FrontierInput, FrontierKept, find_frontier
from workers.measure.kept import Kept
from workers.measure.switch import LoadedAdapter
from workers.run import NamedCheckpoint, PatchInput

COMPUTE = Compute(1, torch.device("cpu"))
JUDGING = Judging(max_new_tokens=12, encoding=Encoding(max_length=64))


def named(folder: Path) -> NamedCheckpoint:
    checkpoint = read_checkpoint(folder, field="chat_model", model=folder.name)
    return NamedCheckpoint(f"lab/{folder.name}", checkpoint)


def measured(
    world: SafetyWorld, folders: Mapping[str, Path], split: str, work: Path
) -> EvaluationReport:
    """The chat model and the adapters in these folders, on one split's prompts."""
    subjects = [_measurand(name, folder, work) for name, folder in folders.items()]
    rows = {role: rows_of(path) for role, path in world.split(split).items()}
    datasets: dict[SetRole, str] = {role: f"{role}_{split}" for role in rows}  # type: ignore[misc] # its keys are roles
    given = EvaluateInput(named(world.chat), subjects, rows, datasets, JUDGING)  # type: ignore[arg-type] # as above
    return evaluate(given, COMPUTE, Kept()).report


def rows_of(path: Path) -> Sequence[object]:
    with path.open("rb") as file:
        return list(read_rows(file))


def _measurand(name: str, folder: Path, work: Path) -> Measurand:
    clean = _clean(folder, work / f"of-{name}")
    manifest = read_manifest(clean)
    return Measurand(SubjectUse(name, manifest.id, None), LoadedAdapter.read(clean, manifest))


def _clean(folder: Path, clean: Path) -> Path:
    """The two files alone, because `save_pretrained` writes others beside them."""
    clean.mkdir(parents=True)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        copyfile(folder / file, clean / file)
    return clean


def searched(
    world: SafetyWorld, adapter: str, recipe: FrontierRecipe, work: Path
) -> FrontierReport:
    """The frontier of one of the world's adapters, chosen on `tuning`, confirmed on `held_out`."""
    (work / "families").mkdir(parents=True)
    folder = _clean(world.adapter(adapter), work / "adapter")
    base, chat = named(world.base), named(world.chat)
    patch = PatchInput(folder, read_manifest(folder), base, chat, Method())
    tuning, held_out = (
        {role: rows_of(path) for role, path in world.split(name).items()}
        for name in ("tuning", "held_out")
    )
    given = FrontierInput(patch, recipe, tuning, held_out)
    kept = FrontierKept(Kept(split="tuning"), Kept(split="held out"))
    return find_frontier(given, work / "families", COMPUTE, kept, lambda *_: None).report


def sets_of(split: str) -> Sets:
    return Sets(*(f"{role}_{split}" for role in ("harmful", "benign", "task")))
