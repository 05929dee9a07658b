"""`adapter-safety salora` in this process: no services, torch imported only here."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from app.alignment.kit import Kit
from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.cli.bars import progress
from app.cli.folders import new_folder, open_checkpoint, open_trained
from app.cli.salora_ids import module_id
from app.config import Settings
from app.domain.dataset import Row
from app.domain.errors import InvalidField
from app.domain.report import ModelReference
from app.domain.salora import (
    ExportRecipe,
    InitRecipe,
    SafetyModuleRecipe,
    TrainRecipe,
    part_id,
)
from app.intake.dataset_rows import read_rows
from workers.compute import Compute
from workers.language_models import tokenizer_digest
from workers.run import NamedCheckpoint
from workers.safety_module import make_safety_module, settings_of
from workers.salora_export import ExportInput, export, export_report, write_beside
from workers.salora_init import InitInput, make_kit
from workers.salora_train import BEGIN, TrainJobInput, train_and_export
from workers.same_model import check_digest

Json = dict[str, Any]
TRAINING = "training.json"  # what an interrupted training was asked for


def make_module(chat: str, data: Path, recipe: SafetyModuleRecipe, out: Path) -> Json:
    with _rows(data) as rows, new_folder(out) as work, progress("sweeping") as on_step:
        made = make_safety_module(named(chat), rows, recipe, work, compute(), on_step)
    return made.report.as_json()


def init(chat: str, module: Path, data: Path | None, recipe: InitRecipe, out: Path) -> Json:
    safety = load_module(module)
    if data is None:
        return _init(InitInput(named(chat), safety, None, recipe), out)
    with _rows(data) as rows:
        return _init(InitInput(named(chat), safety, rows, recipe), out)


def _init(given: InitInput, out: Path) -> Json:
    with new_folder(out) as work, progress("starting") as on_step:
        made = make_kit(given, work, compute(), on_step)
    return made.report.as_json()


def train(chat: str, kit: Path, data: Path, recipe: TrainRecipe, out: Path) -> Json:
    """A training that was interrupted goes on from its last checkpoint, in a folder beside `out`
    that is gone at the end."""
    model = named(chat)
    check_digest("kit", load_kit(kit).config["made_of"], model)
    work = out.absolute().parent / f".{out.name}.training"
    digests = {"chat": model.checkpoint.digest, "tokenizer": tokenizer_digest(model)}
    _check_same(work, {**digests, **asdict(recipe)})
    with _rows(data) as rows, new_folder(out) as exported, progress("training") as on_step:
        given = TrainJobInput(model, kit, rows, recipe)
        report = train_and_export(given, exported, work, compute(), on_step, _kept_in_place)
    shutil.rmtree(work)
    return report.as_json()


def _kept_in_place(folder: Path, step: int) -> None:
    """The Trainer's own folder is where it is looked for."""


def _check_same(work: Path, asked: Mapping[str, object]) -> None:
    """Raises InvalidField where another training was interrupted here."""
    text = json.dumps(asked, sort_keys=True)
    marker = work / TRAINING
    known = marker.read_text() if marker.is_file() else None
    if known != text and work.is_dir() and any(work.iterdir()):
        reason = f"another training was interrupted in {work}: finish it, or remove that folder"
        raise InvalidField(field="out", reason=reason)
    for left in (BEGIN, "adapter", "trained"):
        shutil.rmtree(work / left, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    marker.write_text(text)


def export_here(kit: Path, adapter: Path, recipe: ExportRecipe, out: Path) -> Json:
    loaded = load_kit(kit)
    made_for = loaded.config["chat_model"]
    chat = ModelReference(made_for["id"], None, made_for["digest"])
    with open_trained(adapter) as opened, new_folder(out) as work, progress("exporting") as on_step:
        given = ExportInput(opened.folder, opened.manifest, loaded, recipe.rank)
        rows = export(given, work, on_step)
        report = export_report(given, rows, chat, settings_of(recipe))
        write_beside(report, work)
    return report.as_json()


def load_module(folder: Path) -> SafetyModule:
    """Raises InvalidField."""
    path = folder / SAFETY_MODULE_FILE if folder.is_dir() else folder
    try:
        found = SafetyModule.load(path)
    except (FileNotFoundError, ValueError) as error:
        raise InvalidField(field="module", reason=str(error)) from None
    if part_id(found.made_of) != module_id(folder):
        reason = f"{folder} has the report of another safety module"
        raise InvalidField(field="module", reason=reason)
    return found


def load_kit(folder: Path) -> Kit:
    """Raises InvalidField."""
    try:
        return Kit.load(folder)
    except (FileNotFoundError, ValueError) as error:
        raise InvalidField(field="kit", reason=str(error)) from None


@contextmanager
def _rows(data: Path) -> Iterator[Iterator[Row]]:
    with data.open("rb") as file:
        yield read_rows(file)


def named(model: str, field: str = "chat_model") -> NamedCheckpoint:
    return NamedCheckpoint(model, open_checkpoint(model, field))


def compute() -> Compute:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Compute(Settings().resolved_threads, device)
