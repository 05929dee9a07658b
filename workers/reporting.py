"""From outcomes to the report: decisions, reasons, the summary and its warnings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import PurePath
from statistics import fmean, median
from typing import TypedDict

import torch

from app.alignment.lora import Measures
from app.alignment.projection import IDENTITY, Skipped
from app.domain.adapter import AdapterManifest, LoraModule, kind_of, layer_of
from app.domain.errors import MAX_LISTED
from app.domain.method import SUBSPACE_PROJECTORS, SafeLora, Selection
from app.domain.report import (
    AdapterReference,
    LayerReport,
    MethodReference,
    ModelReference,
    Report,
    Summary,
)
from app.intake.names import shown

ROUNDING_ABOVE = 0.01  # relative; bfloat16 rounds by 0.2 %, so only underflow goes beyond
REMOVED_BELOW = 0.1  # a projected module with less of its update's norm left is in effect removed


@dataclass(frozen=True)
class Scored:
    """A module's numbers, without its tensors."""

    measures: Measures
    alignment_norm: float
    note: str
    rounding: float  # relative error of C B in the adapter's own dtype

    @property
    def cosine(self) -> float:
        return self.measures.cosine


Outcome = Scored | Skipped


def build_report(
    manifest: AdapterManifest,
    base: ModelReference,
    chat: ModelReference,
    method: SafeLora,
    outcomes: Sequence[Outcome],
    chosen: frozenset[int],
) -> Report:
    """`outcomes` are in the manifest's module order; `chosen` are indexes into them."""
    layers = [
        _layer(module, outcome, i in chosen, method.select)
        for i, (module, outcome) in enumerate(zip(manifest.modules, outcomes, strict=True))
    ]
    return Report(
        adapter=AdapterReference(manifest.id, manifest.base_model_name, manifest.dropped_keys),
        base_model=base,
        chat_model=chat,
        method=_method(method),
        summary=_summary(layers, method.select),
        layers=layers,
        unscreened=(),
        warnings=[
            *_warnings(layers, method, manifest.dropped_keys),
            *_warnings_about_models(manifest.base_model_name, chat.id),
            *_warnings_about_rounding(outcomes, chosen),
        ],
        versions={"adapter-safety": version("adapter-safety"), "torch": torch.__version__},
    )


def _layer(module: LoraModule, outcome: Outcome, chosen: bool, select: Selection) -> LayerReport:
    if isinstance(outcome, Skipped):
        return _skipped_layer(module, outcome)
    measures = outcome.measures
    return LayerReport(
        **_identity(module),
        cosine=measures.cosine,
        retained_energy=measures.retained_energy,
        update_norm=measures.update_norm,
        alignment_norm=outcome.alignment_norm,
        pdst=1.0 if chosen else measures.pdst_kept,
        decision="projected" if chosen else "kept",
        reason=_reason(outcome, chosen, select),
    )


def _skipped_layer(module: LoraModule, outcome: Skipped) -> LayerReport:
    return LayerReport(
        **_identity(module),
        cosine=None,
        retained_energy=None,
        update_norm=outcome.update_norm,
        alignment_norm=outcome.alignment_norm,
        pdst=None,
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


def _reason(scored: Scored, chosen: bool, select: Selection) -> str:
    if select.by == "threshold":
        sign = "at or below" if chosen else "above"
        why = f"cosine {scored.cosine:.6g} is {sign} the threshold {select.value:g}"
    elif select.by == "all":
        why = "every module was selected"
    else:
        sign = "among" if chosen else "not among"
        why = f"cosine {scored.cosine:.6g} is {sign} the smallest ({select.by} {select.value:g})"
    return f"{why}; {scored.note}" if scored.note else why


def _method(method: SafeLora) -> MethodReference:
    select = {"by": method.select.by, "value": method.select.value}
    energy = method.resolved_energy
    return MethodReference(method.name, method.projector, energy, method.rank, select)


def _summary(layers: Sequence[LayerReport], select: Selection) -> Summary:
    count = {
        d: sum(layer.decision == d for layer in layers) for d in ("projected", "kept", "skipped")
    }
    highest = max(
        _known(layer.cosine for layer in layers if layer.decision == "projected"), default=None
    )
    retained = _known(layer.retained_energy for layer in layers)
    return Summary(
        modules=len(layers),
        projected=count["projected"],
        kept=count["kept"],
        skipped=count["skipped"],
        threshold=select.value if select.by == "threshold" else highest,
        mean_cosine=_mean(layer.cosine for layer in layers),
        mean_pdst=_mean(layer.pdst for layer in layers),
        median_retained_energy=median(retained) if retained else None,
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return fmean(known) if known else None


def _warnings(
    layers: Sequence[LayerReport], method: SafeLora, dropped: Sequence[str]
) -> Iterable[str]:
    """Plain sentences, the gravest first."""
    projected = [layer for layer in layers if layer.decision == "projected"]
    scored = [layer for layer in layers if layer.decision != "skipped"]
    if not projected:
        yield "No module was selected: the weights are exactly as they came."
    if len(scored) < len(layers):
        yield (
            f"{len(layers) - len(scored)} of {len(layers)} modules were skipped: they were not "
            "screened, and nothing is known about their safety."
        )
    yield from _warnings_about_strength(projected)
    yield from _warnings_about_identity(scored, method)
    yield from _warnings_about_requests(len(scored), method, dropped)


def _warnings_about_strength(projected: Sequence[LayerReport]) -> Iterable[str]:
    removed = sum(e < REMOVED_BELOW for e in _known(layer.retained_energy for layer in projected))
    if removed:
        yield (
            f"The patch has in effect removed the update of {removed} of {len(projected)} "
            f"projected modules: less than {REMOVED_BELOW:.0%} of its norm is left."
        )


def _warnings_about_identity(scored: Sequence[LayerReport], method: SafeLora) -> Iterable[str]:
    unchanged = sum(layer.reason.endswith(IDENTITY) for layer in scored)
    if unchanged:
        yield (
            f"The {method.projector} projector is the identity for {unchanged} of {len(scored)} "
            "modules: their cosine of 1 says nothing, and they are unchanged whether selected or "
            "not."
        )


def _warnings_about_models(trained_on: str | None, chat: str) -> Iterable[str]:
    """Nothing in the weights tells base from chat, or whose adapter this is; names may."""
    if trained_on and PurePath(trained_on).name != PurePath(chat).name:
        yield (
            f"adapter_config.json says that the adapter was trained on {shown(trained_on)}, but "
            f"the chat model of this job is {chat}."
        )


def _warnings_about_rounding(outcomes: Sequence[Outcome], chosen: frozenset[int]) -> Iterable[str]:
    scored = [o for i, o in enumerate(outcomes) if i in chosen and isinstance(o, Scored)]
    coarse = sum(o.rounding > ROUNDING_ABOVE for o in scored)
    if coarse:
        yield (
            f"In {coarse} of {len(scored)} projected modules the adapter's dtype is too coarse for "
            f"C B: what was written is more than {ROUNDING_ABOVE:.0%} away from it."
        )


def _warnings_about_requests(
    scored: int, method: SafeLora, dropped: Sequence[str]
) -> Iterable[str]:
    wanted = method.select.value
    if method.select.by == "count" and wanted is not None and wanted > scored:
        yield f"{wanted:g} modules were to be projected, but only {scored} have a cosine."
    if method.energy is not None and method.projector not in SUBSPACE_PROJECTORS:
        yield f"energy plays no part in the {method.projector} projector."
    if dropped:
        named = ", ".join(dropped[:MAX_LISTED])
        more = f" and {len(dropped) - MAX_LISTED} more" if len(dropped) > MAX_LISTED else ""
        yield f"These keys of adapter_config.json were not written back: {named}{more}."
