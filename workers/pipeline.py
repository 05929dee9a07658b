"""The main job: load -> align -> project -> save, module by module. Knows no Celery."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from app.alignment.blocks import torch_threads
from app.alignment.lora import LoraPair
from app.alignment.projection import DifferenceNotFinite, Skipped, project
from app.alignment.replacement import distance_figure, replacement
from app.domain.adapter import WEIGHTS_FILE, AdapterManifest, LoraModule, TensorEntry
from app.domain.checkpoint import Checkpoint
from app.domain.errors import NonFiniteTensor
from app.domain.method import Method
from app.domain.report import ModelReference, Report, ReportKind
from workers.checkpoints import ModelPair, finite, open_pair, read_tensor
from workers.patched_weights import PatchedWeights, patched_weights
from workers.reporting import Outcome, Scored, build_report


@dataclass(frozen=True)
class NamedCheckpoint:
    """A model as the job named it, and where its weights are."""

    id: str
    checkpoint: Checkpoint
    revision: str | None = None

    @property
    def reference(self) -> ModelReference:
        return ModelReference(self.id, self.revision, self.checkpoint.digest)


@dataclass(frozen=True)
class PatchInput:
    """Everything a patch depends on; the same input gives the same bytes."""

    folder: Path  # holds the adapter's validated files
    manifest: AdapterManifest
    base: NamedCheckpoint
    chat: NamedCheckpoint
    method: Method


@dataclass(frozen=True)
class Progress:
    """One more module is done."""

    done: int
    total: int
    module: str
    cosine: float | None  # None where the module was skipped


OnModule = Callable[[Progress], None]


def patch(given: PatchInput, out: Path, *, threads: int, on_module: OnModule) -> Report:
    """Write the patched weights into the folder `out` and return the report.

    `on_module` is called after each module and may raise (`Stopped`) to end the work. Raises
    NonFiniteTensor, naming the tensor, for NaN or infinity in the adapter or in a model.
    """
    with patched_weights(given.folder / WEIGHTS_FILE, out) as weights:
        report = _examined(given, weights, "patch", threads, on_module)
        chosen = {layer.module for layer in report.layers if layer.decision == "projected"}
        places = [module.lora_b for module in given.manifest.modules if module.name in chosen]
        weights.publish(places, out / WEIGHTS_FILE)
    return report


def score(given: PatchInput, work: Path, *, threads: int, on_module: OnModule) -> Report:
    """The report that `patch` would give, and nothing else; `work` is for a scratch file."""
    with patched_weights(given.folder / WEIGHTS_FILE, work) as weights:
        return _examined(given, weights, "score", threads, on_module)


def _examined(
    given: PatchInput,
    weights: PatchedWeights,
    kind: ReportKind,
    threads: int,
    on_module: OnModule,
) -> Report:
    with (
        torch_threads(1),
        open_pair(given.chat.checkpoint, given.base.checkpoint, threads=threads) as models,
    ):
        outcomes = list(_outcomes(given, models, weights, on_module))
    references = (given.base.reference, given.chat.reference)
    return build_report(given.manifest, *references, given.method, outcomes, kind)


def _outcomes(
    given: PatchInput, models: ModelPair, weights: PatchedWeights, on_module: OnModule
) -> Iterator[Outcome]:
    modules = given.manifest.modules
    for done, module in enumerate(modules, start=1):
        outcome = _outcome(module, models, weights, given.method)
        yield outcome
        on_module(Progress(done, len(modules), module.name, outcome.cosine))


def _outcome(
    module: LoraModule, models: ModelPair, weights: PatchedWeights, method: Method
) -> Outcome:
    a, b = (_factor(weights, entry) for entry in (module.lora_a, module.lora_b))
    pair = LoraPair(a, b, module.scaling)
    try:
        found = project(pair, models.difference(module), method)
    except DifferenceNotFinite:
        raise _culprit(models, module.name) from None
    if isinstance(found, Skipped):
        return found
    final = replacement(pair, found, method)
    return Scored(
        measures=found.measures,
        alignment_norm=found.alignment_norm,
        note="; ".join(filter(None, [_joined(module, models), found.note])),
        rounding=weights.propose(module.lora_b, final),
        pdst_if_selected=distance_figure(final, found.c_b),
    )


def _joined(module: LoraModule, models: ModelPair) -> str:
    """Says so where the checkpoint has the module's weight under another name."""
    stored = models.chat.weight(module.name).name
    return "" if stored == f"{module.name}.weight" else f"its weight in the checkpoint is {stored}"


def _factor(weights: PatchedWeights, entry: TensorEntry) -> Tensor:
    """One factor of the adapter; float64 beyond float32's range counts as infinite, because its
    squares would be."""
    tensor = read_tensor(weights.source, entry)
    finite(tensor.float(), entry.name, "adapter")
    return tensor


def _culprit(models: ModelPair, module: str) -> NonFiniteTensor:
    """Which of the two models' weights holds the NaN or infinity."""

    for source, model in (("chat model", models.chat), ("base model", models.base)):
        weight = model.weight(module)
        if not bool(torch.isfinite(read_tensor(weight.descriptor, weight.entry)).all()):
            return NonFiniteTensor(tensor=weight.name, source=source)
    return NonFiniteTensor(tensor=f"{module}.weight", source="difference of chat and base model")
