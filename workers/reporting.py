"""From outcomes to the report: each module's numbers; `app.jobs.decide` draws the conclusions."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, TypedDict

import torch

from app.alignment.lora import Measures
from app.alignment.projection import Skipped
from app.domain.adapter import AdapterManifest, LoraModule, kind_of, layer_of
from app.domain.method import Method
from app.domain.report import (
    AdapterReference,
    AlignmentSource,
    LayerReport,
    ModelReference,
    Report,
    ReportKind,
    Summary,
    Unscreened,
)
from app.jobs.decide import decided, method_reference
from app.jobs.serving import serving_of


@dataclass(frozen=True)
class Scored:
    """A module's numbers, without its tensors."""

    measures: Measures
    alignment_norm: float
    note: str
    rounding: float | None  # relative error of the selected B in the adapter's own dtype
    pdst_if_selected: float
    alignment: AlignmentSource

    @property
    def cosine(self) -> float:
        return self.measures.cosine


Outcome = Scored | Skipped
NOT_YET = Summary(0, 0, 0, 0, None, None, None, None)


def build_report(
    manifest: AdapterManifest,
    base: ModelReference,
    chat: ModelReference,
    method: Method,
    outcomes: Sequence[Outcome],
    kind: ReportKind,
    untrained: Set[str] = frozenset(),
) -> Report:
    """`outcomes` are in the manifest's module order; `untrained` are tensors that are all zero."""
    pairs = zip(manifest.modules, outcomes, strict=True)
    undecided = Report(
        adapter=AdapterReference(manifest.id, manifest.base_model_name, manifest.dropped_keys),
        base_model=base,
        chat_model=chat,
        method=method_reference(method),
        summary=NOT_YET,
        layers=[_layer(module, outcome) for module, outcome in pairs],
        unscreened=_unscreened(manifest, method, outcomes, untrained),
        warnings=[],
        versions={"adapter-safety": version("adapter-safety"), "torch": torch.__version__},
        serving=serving_of(manifest),
        kind=kind,
    )
    return decided(undecided, method)


def _unscreened(
    manifest: AdapterManifest, method: Method, outcomes: Sequence[Outcome], untrained: Set[str]
) -> list[Unscreened]:
    """The full weights, and what a skipped module has beside its update, unless that is zero."""
    decision: Literal["kept", "dropped"] = "kept" if method.full_weights == "keep" else "dropped"
    full = [
        Unscreened(weight.name, f"a full weight ({weight.feature})", decision)
        for weight in manifest.full_weights
    ]
    passed_over = [
        Unscreened(entry.name, f"{module.name} was skipped: {outcome.reason}", "kept")
        for module, outcome in zip(manifest.modules, outcomes, strict=True)
        if isinstance(outcome, Skipped)
        for entry in (module.bias, module.magnitude)
        if entry and entry.name not in untrained
    ]
    return full + passed_over


def _layer(module: LoraModule, outcome: Outcome) -> LayerReport:
    if isinstance(outcome, Skipped):
        return _skipped_layer(module, outcome)
    measures = outcome.measures
    return LayerReport(
        **_identity(module),
        cosine=measures.cosine,
        retained_energy=measures.retained_energy,
        update_norm=measures.update_norm,
        alignment_norm=outcome.alignment_norm,
        pdst=None,
        pdst_if_selected=outcome.pdst_if_selected,
        pdst_if_kept=measures.pdst_kept,
        rounding=outcome.rounding,
        note=outcome.note,
        alignment=outcome.alignment,
        decision="kept",
        reason="",
    )


def _skipped_layer(module: LoraModule, outcome: Skipped) -> LayerReport:
    return LayerReport(
        **_identity(module),
        cosine=None,
        retained_energy=None,
        update_norm=outcome.update_norm,
        alignment_norm=outcome.alignment_norm,
        pdst=None,
        pdst_if_selected=None,
        pdst_if_kept=None,
        rounding=None,
        note="",
        alignment=None,
        decision="skipped",
        reason=outcome.reason,
    )


class _Identity(TypedDict):
    module: str
    layer: int | None
    kind: str
    shape: tuple[int, int]
    rank: int


def _identity(module: LoraModule) -> _Identity:
    return _Identity(
        module=module.name,
        layer=layer_of(module.name),
        kind=kind_of(module.name),
        shape=(module.d_out, module.d_in),
        rank=module.rank,
    )
