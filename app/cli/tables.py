"""The report as a table on a terminal."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.jobs.render import SALORA_COLUMNS, TITLES, cell, number

MEASURES = {
    "cosine": "cosine",
    "retained": "retained_energy",
    "update": "update_norm",
    "align": "alignment_norm",
    "pdst": "pdst",
}
NARROW_MEASURES = {name: MEASURES[name] for name in ("cosine", "retained")}
STYLES = {"projected": "green", "kept": "", "skipped": "yellow"}
WIDE = 110  # columns; below that the norms and pdst make room for the names
PIPE_WIDTH = 160  # because a pipe has no width, and cut numbers are of no use


def print_json(found: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """To stdout, nothing else."""
    typer.echo(json.dumps(found, indent=2, allow_nan=False))


def print_report(report: Mapping[str, Any]) -> None:
    """To stdout: one row a module, the summary below it, warnings last, where they are seen."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(_table(report, MEASURES if console.width >= WIDE else NARROW_MEASURES))
    summary = report["summary"]
    console.print(
        f"verdict {report['verdict']}: {summary['projected']} projected, {summary['kept']} kept, "
        f"{summary['skipped']} skipped "
        f"of {summary['modules']} modules; mean cosine {number(summary['mean_cosine'])}, "
        f"median retained energy {number(summary['median_retained_energy'])}",
        highlight=False,
    )
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))


def print_salora(report: Mapping[str, Any]) -> None:
    """To stdout: one row a module, what the data was, warnings last, where they are seen."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    kind, columns = report["kind"], SALORA_COLUMNS[report["kind"]]
    title = f"{TITLES[kind]} of {report['chat_model']['id']}"
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold", no_wrap=name != "module")
    for module in report["modules"]:
        table.add_row(*(Text(cell(module[name])) for name in columns))
    console.print(table)
    for data in report["data"]:
        said = f"{data['rows']} rows, {data['response_tokens']} of {data['tokens']} tokens are"
        console.print(f"{data['role']} data: {said} responses'", highlight=False)
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))


def _table(report: Mapping[str, Any], measures: Mapping[str, str]) -> Table:
    table = Table(title=Text(_method(report["method"])), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("module", overflow="fold")  # a narrow terminal folds names, not numbers
    for name in ("shape", "r"):
        table.add_column(name, no_wrap=True)
    for name in measures:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("decision", no_wrap=True)
    for layer in report["layers"]:
        table.add_row(
            Text(layer["module"]),
            "x".join(map(str, layer["shape"])),
            "full" if layer["rank"] is None else str(layer["rank"]),
            *(number(layer[key]) for key in measures.values()),
            Text(layer["decision"], style=STYLES[layer["decision"]]),
        )
    return table


def _method(method: Mapping[str, Any]) -> str:
    """E.g. `safe_lora, projector subspace (energy 0.9), modules by threshold 0.5`."""
    size = next((f" ({k} {method[k]:g})" for k in ("energy", "rank") if method[k] is not None), "")
    select = method["select"]
    value = "" if select["value"] is None else f" {select['value']:g}"
    factor = "" if method["factor"] is None else f" by {method['factor']:g}"
    rescale = "" if method["rescale"] == "none" else f" ({method['rescale']})"
    done = f"{method['name']}{factor}{rescale}"
    projector = f", projector {method['projector']}{size}" if method["projector"] else ""
    return f"{done}{projector}, modules by {select['by']}{value}"
