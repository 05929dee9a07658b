"""Work on the small world in which a chat model refuses and an adapter has unlearnt it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

from app.demo.safety_world.world import SafetyWorld
from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.dataset import Row
from app.domain.evaluation import Budget, Constraints, FrontierRecipe, Judging, SetRole, Sets
from app.domain.measured import SubjectUse
from app.domain.method import Method
from app.domain.salora import Encoding
from app.intake.dataset_rows import read_rows
from app.intake.manifest import read_manifest
from tests.lab.measuring import named
from tests.small_talk import ADAPTER
from workers.measure.evaluate import Measurand
from workers.measure.switch import LoadedAdapter
from workers.run import PatchInput

JUDGING = Judging(utility="loss", max_new_tokens=8, encoding=Encoding(max_length=48))
TUNING, HELD_OUT = (Sets(*(str(i) * 64 for i in range(n, n + 3))) for n in (1, 4))
RECIPE = FrontierRecipe(
    TUNING,
    HELD_OUT,
    JUDGING,
    families=("approximate", "complement", "scale"),
    constraints=Constraints(min_refusal=0.95),
    budget=Budget(evaluations=20),
)
Rows = Mapping[SetRole, Sequence[Row]]


def rows_of(world: SafetyWorld, split: str) -> Rows:
    return {role: _read(path) for role, path in world.split(split).items()}  # type: ignore[misc] # its keys are roles


def _read(path: Path) -> Sequence[Row]:
    with path.open("rb") as file:
        return list(read_rows(file))


def clean(folder: Path, out: Path) -> Path:
    """The adapter's two files alone, because `save_pretrained` writes others beside them."""
    out.mkdir(parents=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        copyfile(folder / name, out / name)
    return out


def patch_input(world: SafetyWorld, folder: Path, method: Method | None = None) -> PatchInput:
    base, chat = named(world.base), named(world.chat)
    return PatchInput(folder, read_manifest(folder), base, chat, method or Method())


def adapter_of(world: SafetyWorld, work: Path) -> Path:
    return clean(world.adapter(ADAPTER), work / "adapter")


def measurand(name: str, folder: Path) -> Measurand:
    manifest = read_manifest(folder)
    return Measurand(SubjectUse(name, manifest.id, None), LoadedAdapter.read(folder, manifest))


def recipe(**changes: object) -> FrontierRecipe:
    return replace(RECIPE, **changes)  # type: ignore[arg-type] # the tests name real fields
