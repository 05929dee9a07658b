"""The report in other forms: the same numbers as its JSON, for people and spreadsheets."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

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
)


ALIGNMENT_COLUMNS = ("module", "shape", "form", "dtype", "size_bytes", "rounding", "source", "note")


def as_json(report: ReportJson) -> str:
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def as_csv(report: ReportJson) -> str:
    """One row a module, RFC 4180; the shape as `d_out x d_in`."""
    columns, key = (ALIGNMENT_COLUMNS, "modules") if _of_models(report) else (COLUMNS, "layers")
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore")
    writer.writeheader()
    for layer in report[key]:
        writer.writerow({**layer, "shape": " x ".join(map(str, layer["shape"]))})
    return out.getvalue()


def as_markdown(report: ReportJson) -> str:
    """Fit for a model card: the summary, the warnings, one table row a module."""
    return _template(f"{_name(report)}.md").render(report=report, number=number)


def as_html(report: ReportJson) -> str:
    """A page that needs nothing else; every value is escaped."""
    return _template(f"{_name(report)}.html").render(report=report, number=number)


FORMATS: Mapping[str, tuple[str, Callable[[ReportJson], str]]] = {
    "json": ("application/json", as_json),
    "csv": ("text/csv; charset=utf-8", as_csv),
    "markdown": ("text/markdown; charset=utf-8", as_markdown),
    "html": ("text/html; charset=utf-8", as_html),
}
"""By the name that `?format=` takes: media type and renderer."""


def number(value: float | None) -> str:
    """Four significant digits, or a dash for what a skipped module does not have."""
    return "-" if value is None else f"{value:.4g}"


def _of_models(report: ReportJson) -> bool:
    return bool(report["kind"] == "alignment")


def _name(report: ReportJson) -> str:
    return "alignment" if _of_models(report) else "report"


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("app.jobs"),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain_markdown
    return environment.get_template(name)


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it stands: one line, nothing in it is markup or HTML."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>()#|~!&])", r"\\\1", line)
