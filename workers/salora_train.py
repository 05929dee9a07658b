"""Kit + task's conversations -> a trained adapter, exported as an ordinary LoRA."""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.alignment.blocks import torch_threads
from app.alignment.kit import Kit
from app.alignment.lora import LoraPair, update_norm
from app.alignment.safety_module import safety_share
from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE, kind_of, layer_of
from app.domain.dataset import Row
from app.domain.salora import TrainRecipe
from app.domain.salora_report import ExportRow, SaloraReport, Training
from app.intake.manifest import read_manifest
from workers.compute import Compute
from workers.encoding import EncodedSet, encode_all
from workers.language_models import load_model, load_tokenizer
from workers.peft_folder import Settings, write_adapter
from workers.run import NamedCheckpoint
from workers.safety_module import data_use, data_warnings, settings_of, versions
from workers.salora_export import (
    ExportInput,
    Pair,
    check_fits,
    export,
    export_warnings,
    is_transposed,
    trained_pairs,
    write_beside,
)
from workers.sweeping import OnStep
from workers.training import OnCheckpoint, Trained, TrainInput, train

BEGIN = "begin"  # of the work folder: what the training starts from
PLAIN = (
    "This is an ordinary LoRA, trained without the safety module to compare with: nothing kept it "
    "from moving along V_s."
)


@dataclass(frozen=True)
class TrainJobInput:
    chat: NamedCheckpoint
    kit: Path
    rows: Iterable[Row]
    recipe: TrainRecipe


def train_and_export(
    given: TrainJobInput,
    out: Path,
    work: Path,
    compute: Compute,
    on_step: OnStep,
    on_checkpoint: OnCheckpoint,
) -> SaloraReport:
    """Train in the folder `work`, from a checkpoint there if there is one; write the exported
    adapter, its report and README into the folder `out`.

    Raises AdapterDoesNotFitKit, and what `read_manifest`, `load_model`, `encode_all`, `train` and
    `export` raise.
    """
    tokenizer, kit = load_tokenizer(given.chat), Kit.load(given.kit)
    begin = _begin(given.kit, kit, work)
    encoded = encode_all(given.rows, tokenizer, given.recipe.encoding)
    with torch_threads(compute.threads):
        model = load_model(given.chat, given.recipe.dtype, compute.device)
        pad = tokenizer.pad_token_id or 0
        inputs = TrainInput(model, kit, begin, encoded, given.recipe, pad)
        trained = train(inputs, work, on_step, on_checkpoint)
    exported = _export_input(trained, work, kit, given.recipe)
    rows = _plain(exported, out) if given.recipe.plain_lora else export(exported, out, _quiet)
    report = _report(given, encoded, trained, rows)
    write_beside(report, out)
    return report


def _begin(folder: Path, kit: Kit, work: Path) -> Path:
    """The kit's adapter, through the same gate as a stranger's, and nothing else: PEFT's loaders
    act on more than that. Raises AdapterDoesNotFitKit, and what `read_manifest` raises."""
    begin = work / BEGIN
    begin.mkdir(parents=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, begin / name)
    manifest = read_manifest(begin)
    check_fits(manifest, kit)
    (begin / CONFIG_FILE).write_text(json.dumps(manifest.config))
    return begin


def _quiet(*_: object) -> None:
    """An export is short beside its training."""


def _export_input(trained: Trained, work: Path, kit: Kit, recipe: TrainRecipe) -> ExportInput:
    """The two files alone, through the same gate as a stranger's."""
    folder = work / "adapter"
    folder.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(trained.folder / name, folder / name)
    return ExportInput(folder, read_manifest(folder), kit, recipe.export_rank)


def _plain(given: ExportInput, out: Path) -> list[ExportRow]:
    """An ordinary LoRA needs no export; what it has along `V_s` is measured."""
    kit, pairs = given.kit.config, dict(trained_pairs(given))
    settings = Settings(
        kit["scaling"], kit["use_rslora"], kit["chat_model"]["id"], is_transposed(given.manifest)
    )
    write_adapter(pairs, settings, out)
    return [_plain_row(name, pair, given.kit) for name, pair in pairs.items()]


def _plain_row(name: str, pair: Pair, kit: Kit) -> ExportRow:
    a, b = pair
    return ExportRow(
        module=name,
        layer=layer_of(name),
        kind=kind_of(name),
        shape=(b.shape[0], a.shape[1]),
        rank=a.shape[0],
        trained_rank=a.shape[0],
        update_norm=update_norm(LoraPair(a, b, kit.config["scaling"])),
        safety_share=safety_share(a, b, kit.modules[name].safety),
        error=None,
    )


def _report(
    given: TrainJobInput, encoded: EncodedSet, trained: Trained, rows: list[ExportRow]
) -> SaloraReport:
    return SaloraReport(
        kind="salora_train",
        chat_model=given.chat.reference,
        settings=settings_of(given.recipe),
        data=[data_use("task", given.recipe.dataset, encoded)],
        modules=rows,
        warnings=[*trained.warnings, *_warnings(given.recipe, encoded, trained.training, rows)],
        versions=versions(),
        training=trained.training,
    )


def _warnings(
    recipe: TrainRecipe, encoded: EncodedSet, training: Training, rows: list[ExportRow]
) -> Iterator[str]:
    if recipe.plain_lora:
        yield PLAIN
    if recipe.warmup_steps >= training.steps:
        yield (
            f"The learning rate never became full: the training had {training.steps} steps, its "
            f"warm-up {recipe.warmup_steps}."
        )
    yield from data_warnings(encoded)
    yield from export_warnings(rows, None if recipe.plain_lora else recipe.export_rank)
