"""From cosines to decisions, the summary and its warnings. Pure, instant, without torch.

A report keeps every number that a decision needs, so it can be decided anew (`what_if`) long after
the job.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from statistics import fmean, median
from typing import Any

from app.alignment.selection import select
from app.domain.errors import MAX_LISTED
from app.domain.method import SUBSPACE_PROJECTORS, Method, Selection
from app.domain.report import (
    IDENTITY,
    TIED,
    TIED_TO_HEAD,
    AdapterReference,
    LayerReport,
    MethodReference,
    ModelReference,
    Report,
    Serving,
    Summary,
    Unscreened,
    Verdict,
)
from app.intake.names import shown

ROUNDING_ABOVE = 0.01  # relative; bfloat16 rounds by 0.2 %, so only underflow goes beyond
POST_HOC = (
    "A safety module was put on an adapter that was trained without it: that is ours, not the "
    "paper's, which trains with it."
)
REMOVED_BELOW = 0.1  # a projected module with less of its update's norm left is in effect removed


def decided(report: Report, method: Method) -> Report:
    """The same numbers, decided by `method`'s selection."""
    layers = decide(report.layers, method)
    return replace(
        report,
        method=method_reference(method),
        layers=layers,
        summary=_summary(layers, method.select),
        verdict=_verdict(report, layers),
        warnings=list(_warnings(report, layers, method)),
    )


def what_if(report: Mapping[str, Any], selection: Selection) -> Report:
    """A stored report decided anew by another selection. Nothing is written, and what was measured
    is left out: it was of the decisions that were made."""
    stored = from_json(report)
    method = replace(method_of(stored.method), select=selection)
    return replace(decided(stored, method), what_if=True, evaluation=None)


def decide(layers: Sequence[LayerReport], method: Method) -> list[LayerReport]:
    """A decision, its pdst and its reason for each module; skipped ones stay as they are."""
    scored = [(i, layer.cosine) for i, layer in enumerate(layers) if layer.cosine is not None]
    picked = select([cosine for _, cosine in scored], method.select)
    chosen = {scored[i][0] for i in picked}
    return [
        layer if layer.decision == "skipped" else _decided(layer, i in chosen, method)
        for i, layer in enumerate(layers)
    ]


def _decided(layer: LayerReport, chosen: bool, method: Method) -> LayerReport:
    return replace(
        layer,
        pdst=layer.pdst_if_selected if chosen else layer.pdst_if_kept,
        decision="projected" if chosen else "kept",
        reason=_reason(layer, chosen, method),
    )


def _reason(layer: LayerReport, chosen: bool, method: Method) -> str:
    parts = [_why(layer, chosen, method.select)]
    what = "B" if layer.rank is not None else "what it changes"
    if chosen and method.name == "scale":
        parts.append(f"{what} was scaled by {method.factor:g}")
    if chosen and method.name == "prune":
        parts.append(f"{what} was set to zero")
    return "; ".join([*parts, layer.note] if layer.note else parts)


def _why(layer: LayerReport, chosen: bool, selection: Selection) -> str:
    if selection.by == "all":
        return "every module was selected"
    if selection.by == "threshold":
        sign = "at or below" if chosen else "above"
        return f"cosine {layer.cosine:.6g} is {sign} the threshold {selection.value:g}"
    sign = "among" if chosen else "not among"
    value = f"({selection.by} {selection.value:g})"
    return f"cosine {layer.cosine:.6g} is {sign} the smallest {value}"


def method_reference(method: Method) -> MethodReference:
    return MethodReference(
        name=method.name,
        projector=method.projector if method.needs_base else None,
        energy=method.resolved_energy,
        rank=method.rank,
        select={"by": method.select.by, "value": method.select.value},
        factor=method.factor,
        rescale=method.rescale,
        full_weights=method.full_weights,
        safety_module=method.safety_module,
    )


def method_of(reference: MethodReference) -> Method:
    """The method that a report was made with; the inverse of `method_reference`."""
    fields = {**vars(reference), "select": Selection(**reference.select)}
    if reference.projector is None:
        del fields["projector"]
    return Method(**fields)


def from_json(value: Mapping[str, Any]) -> Report:
    """A report from its own JSON."""
    return Report(
        **{
            **value,
            "adapter": AdapterReference(
                **{
                    **value["adapter"],
                    "dropped_config_keys": tuple(value["adapter"]["dropped_config_keys"]),
                }
            ),
            "base_model": value["base_model"] and ModelReference(**value["base_model"]),
            "chat_model": ModelReference(**value["chat_model"]),
            "method": MethodReference(**value["method"]),
            "summary": Summary(**value["summary"]),
            "layers": [
                LayerReport(**{**layer, "shape": tuple(layer["shape"])})
                for layer in value["layers"]
            ],
            "unscreened": [Unscreened(**part) for part in value["unscreened"]],
            "serving": [Serving(**system) for system in value["serving"]],
        }
    )


def _summary(layers: Sequence[LayerReport], selection: Selection) -> Summary:
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
        threshold=selection.value if selection.by == "threshold" else highest,
        mean_cosine=_mean(layer.cosine for layer in layers),
        mean_pdst=_mean(layer.pdst for layer in layers),
        median_retained_energy=median(retained) if retained else None,
    )


def _verdict(report: Report, layers: Sequence[LayerReport]) -> Verdict:
    if report.kind == "score":
        return "scored"
    passed_over = any(layer.decision == "skipped" and layer.update_norm != 0 for layer in layers)
    kept = any(part.decision == "kept" for part in report.unscreened)
    return "review" if kept or passed_over else "patched"


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = _known(values)
    return fmean(known) if known else None


def _warnings(report: Report, layers: Sequence[LayerReport], method: Method) -> Iterable[str]:
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
    yield from _warnings_about_full_weights(report.unscreened)
    yield from _warnings_about_tied_heads(layers)
    yield from _warnings_about_strength(projected, method)
    yield from _warnings_about_identity(scored, method)
    if method.name == "salora":
        yield POST_HOC
    yield from _warnings_about_rounding(projected)
    yield from _warnings_about_models(report)
    yield from _warnings_about_requests(len(scored), method, report.adapter.dropped_config_keys)


def _warnings_about_tied_heads(layers: Sequence[LayerReport]) -> Iterable[str]:
    for layer in layers:
        for note in (TIED, TIED_TO_HEAD):
            if note in layer.note:
                yield f"{shown(layer.module)}: {note}."


def _warnings_about_full_weights(unscreened: Sequence[Unscreened]) -> Iterable[str]:
    kept = [part.name for part in unscreened if part.decision == "kept"]
    dropped = [part.name for part in unscreened if part.decision == "dropped"]
    if kept:
        yield (
            f"{_named(kept)} bypass the projection: they were kept as they came, and were not "
            "screened."
        )
    if dropped:
        yield f"{_named(dropped)} bypass the projection: they were dropped from the adapter."


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(shown, names[:MAX_LISTED])) + more


def _warnings_about_strength(projected: Sequence[LayerReport], method: Method) -> Iterable[str]:
    if method.name not in ("safe_lora", "salora") or method.rescale != "none":
        return
    removed = sum(e < REMOVED_BELOW for e in _known(layer.retained_energy for layer in projected))
    if removed:
        yield (
            f"The patch has in effect removed the update of {removed} of {len(projected)} "
            f"projected modules: less than {REMOVED_BELOW:.0%} of its norm is left."
        )


def _warnings_about_identity(scored: Sequence[LayerReport], method: Method) -> Iterable[str]:
    unchanged = sum(layer.note.endswith(IDENTITY) for layer in scored)
    if unchanged:
        yield (
            f"The {method.projector} projector is the identity for {unchanged} of {len(scored)} "
            "modules: their cosine of 1 says nothing, and C B is the B they have."
        )


def _warnings_about_models(report: Report) -> Iterable[str]:
    """Nothing in the weights tells base from chat, or whose adapter this is; names may."""
    trained_on, chat = report.adapter.base_model_name_or_path, report.chat_model.id
    if trained_on and PurePath(trained_on).name != PurePath(chat).name:
        yield (
            f"adapter_config.json says that the adapter was trained on {shown(trained_on)}, but "
            f"the chat model of this job is {chat}."
        )


def _warnings_about_rounding(projected: Sequence[LayerReport]) -> Iterable[str]:
    coarse = sum(e > ROUNDING_ABOVE for e in _known(layer.rounding for layer in projected))
    if coarse:
        yield (
            f"In {coarse} of {len(projected)} projected modules the adapter's dtype is too coarse "
            f"for C B: what was written is more than {ROUNDING_ABOVE:.0%} away from it."
        )


def _warnings_about_requests(scored: int, method: Method, dropped: Sequence[str]) -> Iterable[str]:
    wanted = method.select.value
    if method.select.by == "count" and wanted is not None and wanted > scored:
        yield f"{wanted:g} modules were to be projected, but only {scored} have a cosine."
    if method.energy is not None and method.projector not in SUBSPACE_PROJECTORS:
        yield f"energy plays no part in the {method.projector} projector."
    if dropped:
        yield f"These keys of adapter_config.json were not written back: {_named(dropped)}."
