"""A frontier as tables on a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.measure_tables import (
    Json,
    cells_table,
    print_comparisons,
    print_warnings,
    terminal,
)
from app.jobs.frontier_plot import is_choice
from app.jobs.measured_tables import method_said, score_said
from app.jobs.render import number

SCORES = {"refusal": "refused", "over_refusal": "over-refused", "utility": "utility"}


def print_frontier(report: Json, out: Path, patch: Mapping[str, Any] | None) -> None:
    """To stdout: warnings first, the choice and why, how it did on held-out rows, what was spent,
    and the settings that no other beats. `patch` is what was made, if anything was."""
    console = terminal()
    print_warnings(console, report["warnings"])
    if report["choice"] is not None:
        _print_choice(console, report)
    console.print(_points(report))
    _print_spent(console, report)
    console.print(Text(report["claim"], style="dim"))
    console.print(Text(_made(report, out, patch)))


def _print_choice(console: Console, report: Json) -> None:
    choice = report["choice"]
    style = "green" if report["satisfied"] else "yellow"
    method = method_said(choice["point"]["method"])
    console.print(Text(f"{_title(report)}: {_step(choice['point'])} ({method})", style=style))
    console.print(Text(f"{choice['reason']}."))
    held_out = choice["held_out"]
    console.print(cells_table("On rows that took no part in choosing", held_out["table"]))
    print_comparisons(console, held_out["comparisons"])


def _title(report: Json) -> str:
    return "chosen" if report["satisfied"] else "nearest"


def _step(point: Json) -> str:
    if not point["step"]:
        return "the adapter as it came"
    return f"{point['family']}, step {point['step']} of {point['steps']}"


def _points(report: Json) -> Table:
    title = "Settings that no other beats, on the tuning rows"
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    for name in ("setting", *SCORES.values(), "drift", ""):
        table.add_column(name, no_wrap=name != "setting", overflow="fold")
    shown = set(report["frontier"])
    if report["default"] is not None:
        shown.add(report["default"])
    for index in sorted(shown):
        point = report["points"][index]
        scores = (score_said(point, name) for name in SCORES)
        drift = number(point["scores"]["drift"])
        table.add_row(_step(point), *scores, drift, _marks(report, index))
    return table


def _marks(report: Json, index: int) -> str:
    point = report["points"][index]
    marks = {
        _title(report): is_choice(report, point),
        "published default": index == report["default"],
        "beaten": index not in report["frontier"],
    }
    return ", ".join(name for name, holds in marks.items() if holds)


def _print_spent(console: Console, report: Json) -> None:
    spent = report["spent"]
    console.print(
        f"{spent['screened']} settings screened and {spent['measured']} answered; answering every "
        f"step of every family would have taken {spent['full_sweep']}",
        highlight=False,
    )


def _made(report: Json, out: Path, patch: Mapping[str, Any] | None) -> str:
    if patch is not None:
        return f"patched adapter and report: {out}"
    nearest = report["choice"] is not None and report["choice"]["patch"] is not None
    hint = "; --take-nearest makes the nearest" if nearest else ""
    return f"report: {out} (no patched adapter{hint})"
