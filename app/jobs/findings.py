"""What in a report somebody should look at, one finding each: for dashboards that list such things.

A finding never says that something is safe; where there are none, nothing was found.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.intake.names import shown

ReportJson = Mapping[str, Any]
Level = Literal["note", "warning", "error"]
Place = Literal["module", "parameter", "subject"]

MEASURES = (
    "cosine",
    "retained_energy",
    "update_norm",
    "alignment_norm",
    "pdst",
    "safety_share",
)


@dataclass(frozen=True)
class Finding:
    rule: str  # Rule.name
    level: Level
    message: str
    about: str | None = None  # the module, parameter or subject; None: the whole report
    place: Place = "module"
    facts: Mapping[str, Any] = field(default_factory=dict)  # the report's numbers


def findings(report: ReportJson) -> Iterator[Finding]:
    """In the report's order, verdicts first."""
    kind = report["kind"]
    if kind == "evaluate":
        yield from _made_worse(report)
    elif kind == "frontier":
        yield from _of_a_search(report)
    elif kind == "alignment":
        yield from _not_aligned(report)
    elif "layers" in report:
        yield from _of_a_patch(report)
    for warning in report["warnings"]:
        yield Finding("ReportWarning", "warning", shown(warning))


def _of_a_patch(report: ReportJson) -> Iterator[Finding]:
    if report["verdict"] == "review":
        message = "A part of the adapter was not screened, or the patch made something worse."
        yield Finding("VerdictReview", "error", message)
    if report.get("evaluation"):
        yield from _made_worse(report["evaluation"])
        for warning in report["evaluation"]["warnings"]:
            yield Finding("ReportWarning", "warning", shown(warning))
    for layer in report["layers"]:
        yield from _of_a_layer(layer, written=report["kind"] == "patch" and not report["what_if"])
    for part in report["unscreened"]:
        yield _unscreened(part)


def _of_a_layer(layer: Mapping[str, Any], *, written: bool) -> Iterator[Finding]:
    facts = {name: layer.get(name) for name in (*MEASURES, "layer", "kind", "decision", "rank")}
    name, reason = shown(layer["module"]), shown(layer["reason"])
    if layer["decision"] == "projected":
        verb, level = ("was", "note") if written else ("would be", "warning")
        message = f"{name} {verb} projected: {reason}."
        yield Finding("ModuleProjected", level, message, name, facts=facts)  # type: ignore[arg-type] # one of two
    if layer["decision"] == "skipped":
        message = f"{name} was skipped, so it was not screened: {reason}."
        level = "note" if layer["update_norm"] == 0 else "warning"
        yield Finding("ModuleSkipped", level, message, name, facts=facts)  # type: ignore[arg-type] # one of two


def _unscreened(part: Mapping[str, Any]) -> Finding:
    name, decision = shown(part["name"]), part["decision"]
    message = f"{name} bypasses LoRA, was not screened and was {decision}: {shown(part['reason'])}."
    level: Level = "warning" if decision == "kept" else "note"
    return Finding("UnscreenedPart", level, message, name, "parameter", {"decision": decision})


def _made_worse(measured: ReportJson) -> Iterator[Finding]:
    """Of an evaluation, or of the gate in a patch's report."""
    cells = {(cell["subject"], cell["role"]): cell for cell in measured["table"]}
    for each in measured["comparisons"]:
        if each["verdict"] == "worse":
            sides = (each["one"], each["other"])
            told = [cells.get((side, each["role"])) for side in sides]
            known = [cell and (cell["rate"] or cell["loss"]) for cell in told]
            facts = {name: each[name] for name in ("role", "n", "one_only", "other_only")}
            facts |= {"p_value": each["p_value"], "measured": dict(zip(sides, known, strict=True))}
            yield _worse(each, facts)


def _worse(each: Mapping[str, Any], facts: Mapping[str, Any]) -> Finding:
    about = shown(each["other"])
    return Finding("EvaluationWorse", "error", shown(each["sentence"]), about, "subject", facts)


def _of_a_search(report: ReportJson) -> Iterator[Finding]:
    if not report["satisfied"]:
        message = "No setting holds the constraints on both splits."
        choice = report["choice"]
        facts = choice["point"]["scores"] if choice else {}
        yield Finding("ConstraintsNotHeld", "error", message, facts=facts)
    if report["choice"]:
        held_out = report["choice"]["held_out"]
        yield from _made_worse(held_out)


def _not_aligned(report: ReportJson) -> Iterator[Finding]:
    for module in report["modules"]:
        if module["source"] is None:
            name = shown(module["module"])
            message = f"Nothing is kept of the alignment of {name}: {shown(module['note'])}."
            facts = {name: module[name] for name in ("size_bytes", "rounding", "form")}
            yield Finding("AlignmentNotKept", "note", message, name, facts=facts)
