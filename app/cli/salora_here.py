"""`adapter-safety salora` in this process: no services, torch imported only here."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from app.alignment.kit import Kit
from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.cli.bars import progress
from app.cli.folders import new_folder, open_checkpoint
from app.config import Settings
from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.dataset import Row
from app.domain.errors import InvalidField
from app.domain.report import ModelReference
from app.domain.salora import ExportRecipe, InitRecipe, SafetyModuleRecipe, TrainRecipe
from app.intake.dataset_rows import read_rows
from app.intake.manifest import read_manifest
from app.intake.opened import OpenedAdapter, open_adapter
from workers.compute import Compute
from workers.run import NamedCheckpoint
from workers.safety_module import make_safety_module, settings_of
from workers.salora_export import ExportInput, export, export_report, write_beside
from workers.salora_init import InitInput, make_kit
from workers.salora_train import TrainJobInput, train_and_export
from workers.same_model import check_digest

Json = dict[str, Any]
TRAINING = "training.json"  # what an interrupted training was asked for


def make_module(chat: str, data: Path, recipe: SafetyModuleRecipe, out: Path) -> Json:
    with _rows(data) as rows, new_folder(out) as work, progress("sweeping") as on_step:
        made = make_safety_module(_named(chat), rows, recipe, work, _compute(), on_step)
    return made.report.as_json()


def init(chat: str, module: Path, data: Path | None, recipe: InitRecipe, out: Path) -> Json:
    safety = load_module(module)
    if data is None:
        return _init(InitInput(_named(chat), safety, None, recipe), out)
    with _rows(data) as rows:
        return _init(InitInput(_named(chat), safety, rows, recipe), out)


def _init(given: InitInput, out: Path) -> Json:
    with new_folder(out) as work, progress("starting") as on_step:
        made = make_kit(given, work, _compute(), on_step)
    return made.report.as_json()


def train(chat: str, kit: Path, data: Path, recipe: TrainRecipe, out: Path) -> Json:
    """A training that was interrupted goes on from its last checkpoint, in a folder beside `out`
    that is gone at the end."""
    named = _named(chat)
    check_digest("kit", load_kit(kit).config["made_of"], named)
    work = out.absolute().parent / f".{out.name}.training"
    _check_same(work, {"chat": named.checkpoint.digest, **asdict(recipe)})
    with _rows(data) as rows, new_folder(out) as exported, progress("training") as on_step:
        given = TrainJobInput(named, kit, rows, recipe)
        report = train_and_export(given, exported, work, _compute(), on_step, _kept_in_place)
    shutil.rmtree(work)
    return report.as_json()


def _kept_in_place(folder: Path, step: int) -> None:
    """The Trainer's own folder is where it is looked for."""


def _check_same(work: Path, asked: Mapping[str, object]) -> None:
    """Raises InvalidField where another training was interrupted here."""
    text = json.dumps(asked, sort_keys=True)
    marker = work / TRAINING
    if marker.is_file() and marker.read_text() != text:
        reason = f"another training was interrupted in {work}: finish it, or remove that folder"
        raise InvalidField(field="out", reason=reason)
    for left in ("adapter", "trained"):
        shutil.rmtree(work / left, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    marker.write_text(text)


def export_here(kit: Path, adapter: Path, recipe: ExportRecipe, out: Path) -> Json:
    loaded = load_kit(kit)
    made_for = loaded.config["chat_model"]
    chat = ModelReference(made_for["id"], None, made_for["digest"])
    with _trained(adapter) as opened, new_folder(out) as work, progress("exporting") as on_step:
        given = ExportInput(opened.folder, opened.manifest, loaded, recipe.rank)
        rows = export(given, work, on_step)
        report = export_report(given, rows, chat, settings_of(recipe))
        write_beside(report, work)
    return report.as_json()


@contextmanager
def _trained(adapter: Path) -> Iterator[OpenedAdapter]:
    """Of a folder that a training has left only the adapter's two files are taken."""
    if not adapter.is_dir():
        with open_adapter(adapter) as opened:
            yield opened
        return
    with TemporaryDirectory(prefix="adapter-safety-") as name:
        folder = Path(name)
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            if (adapter / file).is_file():
                shutil.copyfile(adapter / file, folder / file)
        yield OpenedAdapter(folder, read_manifest(folder))


def load_module(folder: Path) -> SafetyModule:
    """Raises InvalidField."""
    path = folder / SAFETY_MODULE_FILE if folder.is_dir() else folder
    try:
        return SafetyModule.load(path)
    except (FileNotFoundError, ValueError) as error:
        raise InvalidField(field="module", reason=str(error)) from None


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


def _named(chat: str) -> NamedCheckpoint:
    return NamedCheckpoint(chat, open_checkpoint(chat, "chat_model"))


def _compute() -> Compute:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Compute(Settings().resolved_threads, device)
