"""The report in other forms: the same numbers as its JSON, for people and spreadsheets."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from app.intake.names import shown
from app.jobs import measured_tables as measured
from app.jobs.cosine_plots import decision_marks, heat_map, histogram
from app.jobs.frontier_plot import frontier_plot
from app.jobs.plots import Curve, curve
from app.jobs.sarif import as_sarif

ReportJson = Mapping[str, Any]

COLUMNS = (
    "module",
    "layer",
    "kind",
    "shape",
    "rank",
    "cosine",
    "retained_energy",
    "update_norm",
    "alignment_norm",
    "pdst",
    "alignment",
    "decision",
    "reason",
    "safety_share",
)


_EXPORT = ("module", "shape", "rank", "trained_rank", "update_norm", "safety_share", "error")
SALORA_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "safety_module": (
        "module", "shape", "rank", "energy", "largest", "smallest", "statistics",
    ),
    "salora_init": (
        "module", "shape", "rank", "safety_rank", "task_rank", "task_energy", "start_norm",
        "weight_norm",
    ),
    "salora_train": _EXPORT,
    "salora_export": _EXPORT,
}  # fmt: skip
TITLES = {
    "safety_module": "Safety module",
    "salora_init": "SaLoRA kit",
    "salora_train": "Trained adapter",
    "salora_export": "Exported adapter",
}
PAGES = {
    "alignment": "alignment",
    "evaluate": "evaluation",
    "frontier": "frontier",
    **dict.fromkeys(SALORA_COLUMNS, "salora"),
}
"""The template by the report's kind; of any other `report`."""
ALIGNMENT_COLUMNS = ("module", "shape", "form", "dtype", "size_bytes", "rounding", "source", "note")


def as_json(report: ReportJson) -> str:
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def as_csv(report: ReportJson) -> str:
    """One row a module (a cell of an evaluation, a setting of a frontier), RFC 4180; the shape as
    `d_out x d_in`."""
    columns, rows = _rows(report)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_markdown(report: ReportJson) -> str:
    """Fit for a model card: the summary, the warnings, one table row a module."""
    return _rendered(report, "md")


def as_html(report: ReportJson) -> str:
    """A page that needs nothing else; every value is escaped."""
    return _rendered(report, "html")


FORMATS: Mapping[str, tuple[str, Callable[[ReportJson], str]]] = {
    "json": ("application/json", as_json),
    "csv": ("text/csv; charset=utf-8", as_csv),
    "markdown": ("text/markdown; charset=utf-8", as_markdown),
    "html": ("text/html; charset=utf-8", as_html),
    "sarif": ("application/sarif+json", as_sarif),
}
"""By the name that `?format=` takes: media type and renderer."""


def number(value: float | None) -> str:
    """Four significant digits, or a dash for what a skipped module does not have."""
    return "-" if value is None else f"{value:.4g}"


def cell(value: object) -> str:
    """One value of a table."""
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value))
    if value is None or isinstance(value, float):
        return number(value)
    return str(value)


def _rows(report: ReportJson) -> tuple[tuple[str, ...], Iterable[Mapping[str, object]]]:
    """A table's columns and rows."""
    if report["kind"] == "evaluate":
        return measured.CELL_COLUMNS, measured.cell_rows(report)
    if report["kind"] == "frontier":
        return measured.POINT_COLUMNS, measured.point_rows(report)
    columns, key = _columns(report)
    return columns, (_row(layer) for layer in report[key])


def _row(layer: Mapping[str, object]) -> dict[str, object]:
    """A module's row: text that a spreadsheet shows and does not compute."""
    plain = {k: measured.no_formula(v) if isinstance(v, str) else v for k, v in layer.items()}
    return {**plain, "shape": cell(layer["shape"])}


def _columns(report: ReportJson) -> tuple[tuple[str, ...], str]:
    """A table's columns, and where the report has its modules."""
    kind = report["kind"]
    if kind in SALORA_COLUMNS:
        return SALORA_COLUMNS[kind], "modules"
    return (ALIGNMENT_COLUMNS, "modules") if kind == "alignment" else (COLUMNS, "layers")


def _rendered(report: ReportJson, suffix: str) -> str:
    kind = report["kind"]
    template = _template(f"{PAGES.get(kind, 'report')}.{suffix}")
    if kind == "frontier":
        return template.render(report=report, plot=frontier_plot(report))
    if kind == "evaluate":
        return template.render(report=report)
    if kind == "alignment":
        return template.render(report=report, number=number)
    if kind not in SALORA_COLUMNS:
        plots = {"heat": heat_map(report), "bars": histogram(report)} if suffix == "html" else {}
        return template.render(report=report, number=number, **plots)
    return template.render(
        report=report,
        number=number,
        cell=cell,
        columns=SALORA_COLUMNS[kind],
        title=TITLES[kind],
        curves=_curves(report["training"]),
    )


def _curves(training: Mapping[str, Any] | None) -> dict[str, Curve]:
    points = training["curve"] if training else []
    steps = [point["step"] for point in points]
    series = {"loss": "loss", "tokens a second": "tokens_per_s"}
    return {
        said: curve(steps, [point[name] for point in points])
        for said, name in series.items()
        if points
    }


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("app.jobs"),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template(name)


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it stands: one line, nothing in it is markup or HTML."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>()#|~!&])", r"\\\1", line)


def code(name: str) -> str:
    """A name as Markdown's code in a table: neither a backtick nor a bar of it ends anything."""
    return "`" + shown(name).replace("`", "'").replace("|", "\\|") + "`"


def fenced(value: object) -> str:
    """JSON for a block of code: no line of it ends the block."""
    return json.dumps(value, indent=2, allow_nan=False)


FILTERS: Mapping[str, Callable[..., object]] = {
    "plain": plain_markdown,
    "code": code,
    "marks": decision_marks,
    "number": number,
    "json": fenced,
    "interval": measured.with_interval,
    "matrix": measured.matrix,
    "roles": measured.roles_of,
    "gibberish": measured.gibberish,
    "method": measured.method_said,
    "flat": measured.flat,
    "standing": measured.standing,
    "outcome": measured.outcome,
    "score": measured.score_said,
}
