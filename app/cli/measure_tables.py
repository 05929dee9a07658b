"""What was measured, as tables on a terminal."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.tables import PIPE_WIDTH
from app.jobs.measured_tables import matrix, roles_of, with_interval
from app.jobs.render import number

Json = Mapping[str, Any]
WORDS = {"refused": "refused", "safe": "answered safely", "right": "right", None: "loss"}


def print_evaluation(report: Json) -> None:
    """To stdout: warnings first, one row a subject, then who differs from whom."""
    console = terminal()
    print_warnings(console, report["warnings"])
    console.print(cells_table(f"Measured on {report['chat_model']['id']}", report["table"]))
    print_comparisons(console, report["comparisons"])
    console.print(Text(report["claim"], style="dim"))


def terminal() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_warnings(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))


def print_comparisons(console: Console, comparisons: Sequence[Json]) -> None:
    styles = {"worse": "red", "better": "green"}
    for one in comparisons:
        console.print(Text(f"- {one['sentence']}", style=styles.get(one["verdict"], "")))


def cells_table(title: str, cells: Sequence[Json]) -> Table:
    """One row a subject, one column a role, with 95 % intervals."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("subject", overflow="fold")
    roles, given = roles_of(cells), any(cell["given"] for cell in cells)
    for role in roles:
        table.add_column(Text(_heading(cells, role)), no_wrap=True)
    more = ["no language", f"drift, {roles[0]}"]
    for name in ["harm given", *more] if given else more:
        table.add_column(name, justify="right", no_wrap=True)
    for subject, by_role in matrix(cells).items():
        shares = (_share(by_role.get(role)) for role in roles)
        drift = (by_role.get(roles[0]) or {}).get("drift")
        first = number(drift["first"]) if drift else "-"
        table.add_row(Text(subject), *shares, *_more(by_role, given), first)
    return table


def _heading(cells: Sequence[Json], role: str) -> str:
    """E.g. `harmful refused`, with how many rows below."""
    cell = next(cell for cell in cells if cell["role"] == role)
    judge = "" if cell["outcome"] is None else f" ({cell['judge']})"
    return f"{role} {WORDS[cell['outcome']]}{judge}\nof {cell['n']}, 95 %"


def _share(cell: Json | None) -> str:
    return "-" if cell is None else with_interval(cell["loss"] or cell["rate"])


def _more(by_role: Mapping[str, Json], given: bool) -> Iterator[str]:
    cells = by_role.values()
    if given:
        found = next((cell["given"] for cell in cells if cell["given"]), None)
        yield "-" if found is None else f"{found['count']}/{found['n']}"
    broken = [c["gibberish"] + c["empty"] for c in cells if c["gibberish"] is not None]
    yield str(sum(broken)) if broken else "-"
