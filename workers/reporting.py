"""From outcomes to the report: each module's numbers; `app.jobs.decide` draws the conclusions."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch

from app import __version__
from app.alignment.lora import Measures
from app.alignment.projection import Skipped
from app.domain.adapter import AdapterManifest, FullWeight, LoraModule, kind_of, layer_of
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
    alignment_norm: float | None
    note: str
    rounding: float | None  # relative error of the selected B in the adapter's own dtype
    pdst_if_selected: float
    alignment: AlignmentSource | None
    safety_share: float | None = None

    @property
    def cosine(self) -> float:
        return self.measures.cosine


Outcome = Scored | Skipped


@dataclass(frozen=True)
class FullOutcome:
    """What became of a full weight that was to be projected."""

    weight: FullWeight
    shape: tuple[int, ...]  # (d_out, n) of what it changes, where that was compared
    outcome: Outcome | str  # or why it could not be


@dataclass(frozen=True)
class Outcomes:
    """Everything that was found out about an adapter."""

    modules: Sequence[Outcome]  # in the manifest's module order
    full: Sequence[FullOutcome]  # empty unless the method projects them
    untrained: Set[str]  # names of tensors that are all zero


NOT_YET = Summary(0, 0, 0, 0, None, None, None, None)


def build_report(
    manifest: AdapterManifest,
    base: ModelReference | None,
    chat: ModelReference,
    method: Method,
    found: Outcomes,
    kind: ReportKind,
) -> Report:
    """The numbers and what follows from them."""
    undecided = Report(
        adapter=AdapterReference(manifest.id, manifest.base_model_name, manifest.dropped_keys),
        base_model=base,
        chat_model=chat,
        method=method_reference(method),
        summary=NOT_YET,
        layers=[*_layers(manifest, found)],
        unscreened=[*_full_weights(manifest, method, found), *_passed_over(manifest, found)],
        warnings=[],
        versions={"adapter-safety": __version__, "torch": torch.__version__},
        serving=serving_of(manifest),
        kind=kind,
    )
    return decided(undecided, method)


def _full_weights(
    manifest: AdapterManifest, method: Method, found: Outcomes
) -> Iterator[Unscreened]:
    """Those that no projector saw."""
    if method.full_weights == "project":
        for each in found.full:
            if isinstance(each.outcome, str):
                yield _unscreened(each.weight, "kept", f": {each.outcome}")
        return
    decision: Literal["kept", "dropped"] = "kept" if method.full_weights == "keep" else "dropped"
    for weight in manifest.full_weights:
        yield _unscreened(weight, decision)


def _unscreened(
    weight: FullWeight, decision: Literal["kept", "dropped"], why: str = ""
) -> Unscreened:
    return Unscreened(weight.name, f"a full weight ({weight.feature}){why}", decision)


def _passed_over(manifest: AdapterManifest, found: Outcomes) -> Iterator[Unscreened]:
    """What a skipped module has beside its update, unless that is zero."""
    for module, outcome in zip(manifest.modules, found.modules, strict=True):
        if isinstance(outcome, Skipped):
            for entry in (module.bias, module.magnitude):
                if entry and entry.name not in found.untrained:
                    why = f"{module.name} was skipped: {outcome.reason}"
                    yield Unscreened(entry.name, why, "kept")


def _layers(manifest: AdapterManifest, found: Outcomes) -> Iterator[LayerReport]:
    for module, outcome in zip(manifest.modules, found.modules, strict=True):
        yield _layer(_identity(module), outcome)
    for each in found.full:
        if not isinstance(each.outcome, str):
            yield _layer(_identity_of_full(each), each.outcome)


def _layer(identity: "_Identity", outcome: Outcome) -> LayerReport:
    if isinstance(outcome, Skipped):
        return _skipped_layer(identity, outcome)
    measures = outcome.measures
    return LayerReport(
        **identity,
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
        safety_share=outcome.safety_share,
        decision="kept",
        reason="",
    )


def _skipped_layer(identity: "_Identity", outcome: Skipped) -> LayerReport:
    return LayerReport(
        **identity,
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
    rank: int | None


def _identity(module: LoraModule) -> _Identity:
    return _Identity(
        module=module.name,
        layer=layer_of(module.name),
        kind=kind_of(module.name),
        shape=(module.d_out, module.d_in),
        rank=module.rank,
    )


def _identity_of_full(found: FullOutcome) -> _Identity:
    name = found.weight.name
    d_out, n = found.shape
    return _Identity(
        module=name,
        layer=layer_of(name),
        kind=kind_of(name.rpartition(".")[0]),
        shape=(d_out, n),
        rank=None,
    )
