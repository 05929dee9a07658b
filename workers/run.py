"""One adapter's way through the pipeline: its tensors in, its outcomes and its files out."""

from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from app.alignment.lora import LoraPair
from app.alignment.projection import Applied, Skipped, examined, zero_update
from app.alignment.replacement import distance_figure, replacement
from app.domain.adapter import WEIGHTS_FILE, AdapterManifest, LoraModule, TensorEntry
from app.domain.checkpoint import Checkpoint
from app.domain.errors import AdapterSafetyError
from app.domain.method import Method
from app.domain.report import ModelReference, Report, ReportKind
from workers.checkpoints import ModelPair, finite, read_tensor
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
OnEnd = Callable[["Run"], None]


def _nothing(_: "Run") -> None: ...


@dataclass
class Run:
    """One adapter of a batch. What goes wrong with it (`fault`) is its own: the others go on."""

    given: PatchInput
    out: Path  # an existing folder: of the patched weights, and of a scratch file
    kind: ReportKind
    on_module: OnModule  # called after each module; may raise (`Stopped`) to end this run
    on_end: OnEnd = _nothing  # called once, as soon as there is a report or a fault
    fault: AdapterSafetyError | None = None
    report: Report | None = None
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def modules(self) -> Mapping[str, LoraModule]:
        return {module.name: module for module in self.given.manifest.modules}

    @property
    def is_through(self) -> bool:
        """Whether nothing is left to compute: every module is done, or something went wrong."""
        return self.fault is not None or len(self._outcomes) == len(self.modules)

    @cached_property
    def _weights(self) -> PatchedWeights:
        return self._open.enter_context(patched_weights(self.given.folder / WEIGHTS_FILE, self.out))

    def shares(self, name: str) -> Hashable:
        """What the runs of a batch must have in common for this module's columns to be stacked."""
        return self.given.method.projection, self.modules[name].d_out

    def columns(self, name: str) -> Tensor | None:
        """What the projector is to be applied to, `(d_out, n)`; None where that is nothing: a zero
        update's outcome is known. Raises NonFiniteTensor."""
        pair = self._pair(self.modules[name])
        skipped = zero_update(pair)
        if skipped is None:
            return pair.b
        self._note(name, skipped)
        return None

    def take(self, name: str, applied: Applied, models: ModelPair) -> None:
        """The projector applied to this run's columns. Raises NonFiniteTensor, and what
        `on_module` raises."""
        self._note(name, self._outcome(self.modules[name], applied, models))

    def finish(self) -> None:
        """The report, and for a patch the weights. Raises NonFiniteTensor where `C B` is too large
        for the adapter's dtype."""
        given = self.given
        outcomes = [self._outcomes[module.name] for module in given.manifest.modules]
        references = (given.base.reference, given.chat.reference)
        report = build_report(given.manifest, *references, given.method, outcomes, self.kind)
        if self.kind == "patch":
            chosen = [m.module for m in report.layers if m.decision == "projected"]
            places = [self.modules[name].lora_b for name in chosen]
            self._weights.publish(places, self.out / WEIGHTS_FILE)
        self.report = report

    def result(self) -> Report:
        """The report. Raises what went wrong with this run."""
        if self.fault:
            raise self.fault
        if self.report is None:
            raise RuntimeError("the run is not finished")
        return self.report

    def close(self) -> None:
        self._open.close()

    def _note(self, name: str, outcome: Outcome) -> None:
        self._outcomes[name] = outcome
        done, total = len(self._outcomes), len(self.modules)
        self.on_module(Progress(done, total, name, outcome.cosine))

    def _pair(self, module: LoraModule) -> LoraPair:
        a, b = (self._factor(entry) for entry in (module.lora_a, module.lora_b))
        return LoraPair(a, b, module.scaling)

    def _factor(self, entry: TensorEntry) -> Tensor:
        """One factor of the adapter; float64 beyond float32's range counts as infinite, because
        its squares would be."""
        tensor = read_tensor(self._weights.source, entry)
        finite(tensor.float(), entry.name, "adapter")
        return tensor

    def _outcome(self, module: LoraModule, applied: Applied, models: ModelPair) -> Outcome:
        pair, method = self._pair(module), self.given.method
        found = examined(pair, applied)
        if isinstance(found, Skipped):
            return found
        final = replacement(pair, found, method)
        return Scored(
            measures=found.measures,
            alignment_norm=found.alignment_norm,
            note="; ".join(filter(None, [_joined(module, models), found.note])),
            rounding=self._weights.propose(module.lora_b, final),
            pdst_if_selected=distance_figure(final, found.c_b),
            alignment=found.source,
        )


def _joined(module: LoraModule, models: ModelPair) -> str:
    """Says so where the checkpoint has the module's weight under another name."""
    stored = models.chat.weight(module.name).name
    return "" if stored == f"{module.name}.weight" else f"its weight in the checkpoint is {stored}"
