"""Chat model + safety set -> a safety module: one sweep, `V_s` of every target module."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from torch import nn

from app.alignment.activations import weight_of
from app.alignment.blocks import torch_threads
from app.alignment.safety_module import SAFETY_MODULE_FILE, save
from app.domain.adapter import REPORT_FILE, kind_of, layer_of, module_order
from app.domain.dataset import Row
from app.domain.salora import (
    PartModule,
    Recipe,
    SafetyModuleRecipe,
    part_id,
    safety_module_facts,
)
from app.domain.salora_report import DataUse, SafetyRow, SaloraReport
from app.jobs.render import as_json
from workers.compute import Compute
from workers.encoding import EncodedSet, encode_all
from workers.language_models import find_targets, load_model, load_tokenizer, tokenizer_digest
from workers.run import NamedCheckpoint
from workers.sweeping import OnStep, Swept, sweep


@dataclass(frozen=True)
class MadePart:
    """What lies in the output folder."""

    id: str
    modules: tuple[PartModule, ...]
    made_of: Mapping[str, object]
    report: SaloraReport


def make_safety_module(
    chat: NamedCheckpoint,
    rows: Iterable[Row],
    recipe: SafetyModuleRecipe,
    out: Path,
    compute: Compute,
    on_step: OnStep,
) -> MadePart:
    """Write the safety module and its report into the folder `out`.

    Raises CheckpointRefused, TokenizerRefused, TargetsRefused, what `encode_all` raises,
    OutOfMemory, and what `on_step` raises.
    """
    encoded = encode_all(rows, load_tokenizer(chat), recipe.encoding)
    with torch_threads(compute.threads):
        model = load_model(chat, recipe.dtype, compute.device)
        targets = ordered(find_targets(model, recipe.target_modules))
        swept = sweep(model, targets, encoded, recipe.rank, on_step)
    made_of = safety_module_facts(recipe, chat.checkpoint.digest, tokenizer_digest(chat))
    save(out / SAFETY_MODULE_FILE, swept.subspaces, made_of)
    report = _report(chat, encoded, recipe, targets, swept, part_id(made_of))
    write_report(report, out)
    modules = tuple(PartModule(r.module, *r.shape, r.rank) for r in report.modules)
    return MadePart(part_id(made_of), modules, made_of, report)


def ordered(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    return {name: modules[name] for name in sorted(modules, key=module_order)}


def write_report(report: SaloraReport, out: Path) -> None:
    (out / REPORT_FILE).write_bytes(as_json(report.as_json()).encode())


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as reports show it: flat."""
    found = asdict(recipe)
    encoding = found.pop("encoding", {})
    return {**found, **encoding}


def data_use(role: Literal["safety", "task"], dataset: str, rows: EncodedSet) -> DataUse:
    return DataUse(
        role=role,
        dataset=dataset,
        rows=len(rows.rows),
        tokens=rows.tokens,
        response_tokens=rows.response_tokens,
        shortened=rows.shortened,
        chat_template=rows.template,
    )


def versions() -> dict[str, str]:
    names = ("adapter-safety", "torch", "transformers", "peft")
    return {name: version(name) for name in names}


def _report(
    chat: NamedCheckpoint,
    encoded: EncodedSet,
    recipe: SafetyModuleRecipe,
    targets: Mapping[str, nn.Module],
    swept: Swept,
    part: str,
) -> SaloraReport:
    rows = [_row(name, targets[name], swept) for name in targets]
    return SaloraReport(
        kind="safety_module",
        chat_model=chat.reference,
        settings=settings_of(recipe),
        data=[data_use("safety", recipe.dataset, encoded)],
        modules=rows,
        warnings=[*swept.warnings, *_warnings(rows, encoded, recipe)],
        versions=versions(),
        part=part,
    )


def _row(name: str, module: nn.Module, swept: Swept) -> SafetyRow:
    found, (d_out, d_in) = swept.subspaces[name], weight_of(module).shape
    return SafetyRow(
        module=name,
        layer=layer_of(name),
        kind=kind_of(name),
        shape=(d_out, d_in),
        rank=found.basis.shape[1],
        energy=found.energy,
        largest=float(found.values[0]),
        smallest=float(found.values[-1]),
        statistics="sketch" if name in swept.sketched else "second moments",
    )


def _warnings(
    rows: list[SafetyRow], encoded: EncodedSet, recipe: SafetyModuleRecipe
) -> Iterable[str]:
    """Plain sentences, the gravest first."""
    whole = [row.module for row in rows if row.rank == row.shape[0]]
    if whole:
        yield (
            f"V_s spans every output of {len(whole)} modules, {whole[0]} among them: nothing that "
            "is trained there will have any effect."
        )
    smaller = [row for row in rows if row.rank < recipe.rank]
    if smaller:
        yield (
            f"{len(smaller)} of {len(rows)} modules have no {recipe.rank} directions: the rank is "
            f"{min(row.rank for row in smaller)} at the least."
        )
    yield from data_warnings(encoded)


def data_warnings(encoded: EncodedSet) -> Iterable[str]:
    if encoded.shortened:
        yield (
            f"{encoded.shortened} of {len(encoded.rows)} rows were cut off at the maximum length."
        )
    if encoded.steering:
        yield (
            f"{encoded.steering} of {len(encoded.rows)} rows hold special tokens of the tokenizer "
            "in their own text: the model reads them as such, so a turn may end or begin there."
        )
