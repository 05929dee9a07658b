"""The report as a table on a terminal."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.jobs.render import number

STYLES = {"projected": "green", "kept": "", "skipped": "yellow"}
PIPE_WIDTH = 160  # because a pipe has no width, and cut numbers are of no use


def print_report(report: Mapping[str, Any]) -> None:
    """To stdout: one row a module, the summary below it, warnings last, where they are seen."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(_table(report["layers"]))
    summary = report["summary"]
    console.print(
        f"{summary['projected']} projected, {summary['kept']} kept, {summary['skipped']} skipped "
        f"of {summary['modules']} modules; mean cosine {number(summary['mean_cosine'])}, "
        f"median retained energy {number(summary['median_retained_energy'])}",
        highlight=False,
    )
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))


def _table(layers: list[Mapping[str, Any]]) -> Table:
    table = Table(
        title="Safety report", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("module", overflow="fold")  # a narrow terminal folds names, not numbers
    for name in ("shape", "r"):
        table.add_column(name, no_wrap=True)
    for name in ("cosine", "retained", "update", "align", "pdst"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("decision", no_wrap=True)
    for layer in layers:
        table.add_row(
            Text(layer["module"]),
            "x".join(map(str, layer["shape"])),
            str(layer["rank"]),
            *(number(layer[key]) for key in MEASURES),
            Text(layer["decision"], style=STYLES[layer["decision"]]),
        )
    return table


MEASURES = ("cosine", "retained_energy", "update_norm", "alignment_norm", "pdst")
