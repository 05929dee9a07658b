"""One adapter's way through the pipeline: its tensors in, its outcomes and its files out."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from app.alignment.dora import weight_norms
from app.alignment.lora import LoraPair, update_norm
from app.alignment.projection import Applied, Projected, Skipped, examined, zero_update
from app.alignment.replacement import (
    distance_figure,
    replaced,
    replaced_magnitude,
    replacement,
)
from app.alignment.safety_module import SafetyModule
from app.domain.adapter import (
    WEIGHTS_FILE,
    AdapterManifest,
    FullWeight,
    LoraModule,
    TensorEntry,
)
from app.domain.checkpoint import Checkpoint
from app.domain.errors import AdapterSafetyError
from app.domain.method import Method
from app.domain.report import TIED, TIED_TO_HEAD, ModelReference, Report, ReportKind
from app.observe.watch import moved
from workers.alignments import Alignments
from workers.checkpoints import ModelPair, finite, read_tensor
from workers.delta_projection import project_delta
from workers.deltas import Delta, delta_of
from workers.patched_weights import PatchedWeights, patched_weights
from workers.reporting import FullOutcome, Outcome, Outcomes, Scored, build_report


@dataclass(frozen=True)
class NamedCheckpoint:
    """A model as the job named it, and where its weights are."""

    id: str
    checkpoint: Checkpoint

    @property
    def reference(self) -> ModelReference:
        return ModelReference(self.id, self.checkpoint.revision, self.checkpoint.digest)


@dataclass(frozen=True)
class PatchInput:
    """Everything a patch depends on; the same input gives the same bytes."""

    folder: Path  # holds the adapter's validated files
    manifest: AdapterManifest
    base: NamedCheckpoint | None  # None where the method compares with none
    chat: NamedCheckpoint
    method: Method
    safety: SafetyModule | None = None  # where the method takes one


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
    _full: list[FullOutcome] = field(default_factory=list)
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
        module = self.modules[name]
        return self.given.method.projection, module.layer_type, module.d_out, _vocabulary(module)

    def columns(self, name: str) -> Tensor | None:
        """What the projector is to be applied to, `(d_out, n)`; None where that is nothing: a zero
        update's outcome is known. Raises NonFiniteTensor."""
        module = self.modules[name]
        pair = self._pair(module)
        skipped = zero_update(pair)
        if skipped is None:
            bias = self._vector(module.bias)
            return pair.b if bias is None else torch.cat([pair.b, bias[:, None]], 1)
        self._note(name, skipped)
        return None

    def take(self, name: str, applied: Applied, models: ModelPair) -> None:
        """The projector applied to this run's columns. Raises NonFiniteTensor, and what
        `on_module` raises."""
        self._note(name, self._outcome(self.modules[name], applied, models))

    def take_full_weights(self, alignments: Alignments) -> None:
        """Where the method projects them: each by itself, because its columns are many. Raises
        NonFiniteTensor, and what `on_module` raises."""
        for weight in self._full_weights:
            delta = delta_of(weight, self._weights.source, alignments.models)
            self._full.append(self._compared(weight, delta, alignments))
            self._progress(weight.name, self._full[-1].outcome)

    def _compared(
        self, weight: FullWeight, delta: Delta | str, alignments: Alignments
    ) -> FullOutcome:
        if isinstance(delta, str):
            return FullOutcome(weight, weight.entry.shape, delta)
        scratch = self.out / "delta.scratch"
        outcome = project_delta(delta, alignments, self.given.method, self._weights, scratch)
        return FullOutcome(weight, delta.shape, outcome)

    @property
    def _full_weights(self) -> Sequence[FullWeight]:
        """Those that are to be projected."""
        given = self.given
        return given.manifest.full_weights if given.method.full_weights == "project" else ()

    def finish(self) -> None:
        """The report, and for a patch the weights. Raises NonFiniteTensor where `C B` is too large
        for the adapter's dtype."""
        given = self.given
        outcomes = [self._outcomes[module.name] for module in given.manifest.modules]
        found = Outcomes(outcomes, self._full, self._zero_biases())
        base = given.base.reference if given.base else None
        references = (base, given.chat.reference)
        report = build_report(given.manifest, *references, given.method, found, self.kind)
        if self.kind == "patch":
            chosen = [m.module for m in report.layers if m.decision == "projected"]
            places = [entry for name in chosen for entry in self._replaced(name)]
            self._weights.publish(places, self.out / WEIGHTS_FILE, _dropped(given))
        self.report = report

    def _replaced(self, name: str) -> list[TensorEntry]:
        """The tensors that are replaced where the layer is selected."""
        if module := self.modules.get(name):
            return [entry for entry in (module.lora_b, module.bias, module.magnitude) if entry]
        return [found.weight.entry for found in self._full if found.weight.name == name]

    def _zero_biases(self) -> Set[str]:
        """Of modules that were skipped."""
        skipped = (m for m in self.modules.values() if isinstance(self._outcomes[m.name], Skipped))
        entries = (module.bias for module in skipped if module.bias)
        return {entry.name for entry in entries if not bool(self._factor(entry).any())}

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
        self._progress(name, outcome)

    def _progress(self, name: str, outcome: Outcome | str) -> None:
        done = len(self._outcomes) + len(self._full)
        total = len(self.modules) + len(self._full_weights)
        cosine = None if isinstance(outcome, str) else outcome.cosine
        self.on_module(Progress(done, total, name, cosine))

    def _pair(self, module: LoraModule) -> LoraPair:
        a, b = (self._factor(entry) for entry in (module.lora_a, module.lora_b))
        return LoraPair(a, b, module.scaling)

    def _factor(self, entry: TensorEntry) -> Tensor:
        """One factor of the adapter; float64 beyond float32's range counts as infinite, because
        its squares would be."""
        tensor = read_tensor(self._weights.source, entry)
        moved("read", tensor.nbytes)
        finite(tensor.float(), entry.label, "adapter")
        return tensor

    def _vector(self, entry: TensorEntry | None) -> Tensor | None:
        return None if entry is None else self._factor(entry)

    def _outcome(self, module: LoraModule, applied: Applied, models: ModelPair) -> Outcome:
        pair, method = self._pair(module), self.given.method
        found = examined(pair, applied.part(slice(0, module.rank)))
        if isinstance(found, Skipped):
            return found
        final = replacement(pair, found, method)
        rounding = [self._weights.propose(module.lora_b, final)]
        rounding += self._propose_vectors(module, applied, found, models)
        return Scored(
            measures=found.measures,
            alignment_norm=found.alignment_norm,
            note="; ".join(filter(None, [*_notes(module, models), found.note])),
            rounding=None if None in rounding else max(filter(None, rounding), default=0.0),
            pdst_if_selected=distance_figure(final, found.c_b),
            alignment=found.source,
            safety_share=_inside(pair, found) if method.name == "salora" else None,
        )

    def _propose_vectors(
        self, module: LoraModule, applied: Applied, found: Projected, models: ModelPair
    ) -> Iterator[float | None]:
        """What the module's own bias and its magnitude become, where it has them; the relative
        error of each in the adapter's own dtype."""
        bias, magnitude = self._vector(module.bias), self._vector(module.magnitude)
        method = self.given.method
        if module.bias and bias is not None:
            retained = found.measures.retained_energy
            c_bias = applied.product[:, module.rank :]
            final = replaced(bias[:, None], c_bias, retained, method)
            yield self._weights.propose(module.bias, final[:, 0])
        if module.magnitude and magnitude is not None:
            chat = models.chat.weight(module.name)
            norms = weight_norms(chat, transposed=models.is_transposed(module))
            final = replaced_magnitude(magnitude, norms, method)
            yield self._weights.propose(module.magnitude, final)


def _inside(pair: LoraPair, found: Projected) -> float:
    """`||V_s V_s^T dW||_F / ||dW||_F`."""
    inside = LoraPair(pair.a, pair.b.double() - found.c_b.double(), pair.scaling)
    return update_norm(inside) / found.measures.update_norm


def _dropped(given: PatchInput) -> list[TensorEntry]:
    if given.method.full_weights != "drop":
        return []
    return [weight.entry for weight in given.manifest.full_weights]


def _vocabulary(module: LoraModule) -> int | None:
    """An embedding's, of which `V` has no more rows."""
    return module.d_in if module.layer_type == "embedding" else None


def _notes(module: LoraModule, models: ModelPair) -> Iterator[str]:
    """What there is to say about the module itself."""
    chat, base = (model.weight(module.name) for model in (models.chat, models.base))
    if chat.name != f"{module.name}.weight":
        yield f"its weight in the checkpoint is {chat.name}"
    if models.chat.checkpoint.is_tied(module.name):
        yield TIED
    elif models.chat.checkpoint.is_tied_to_head(module.name):
        yield TIED_TO_HEAD
    v = models.difference(module)
    sizes = (_rows(module, models), base.shape[0], chat.shape[0])
    if len(set(sizes)) > 1:
        yield (
            f"V is of the {v.chat.shape[0]} tokens that all have (adapter {sizes[0]}, base "
            f"{sizes[1]}, chat {sizes[2]})"
        )
    if module.magnitude:
        yield "DoRA: a selected module's magnitude becomes the norm of the chat model's weight"


def _rows(module: LoraModule, models: ModelPair) -> int:
    """How many rows the adapter's update has where the weight is stored."""
    return module.d_in if models.is_transposed(module) else module.d_out
