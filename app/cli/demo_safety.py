"""`adapter-safety demo --safety`: what patching does to refusals and to skill, measured."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from app.cli.bars import progress
from app.cli.measure_tables import terminal
from app.demo.safety_findings import LIMITS, findings
from app.demo.safety_table import AdapterTable, Search, TableRow, made_safety_module
from app.demo.safety_world.language import Language
from app.demo.safety_world.world import ADAPTERS, Effort, SafetyWorld, make_safety_world
from app.demo.world import be_quiet
from app.domain.evaluation import CHAT
from app.domain.measured import Rate

TABLE_FILE = "safety_table.json"
SEARCH = Search(evaluations=16)  # because of 30 most do not change a choice, and it is a demo
WIDE = 130  # columns; below, the settings make room


def demo_safety(out: Path, seed: int, cache: Path | None) -> None:
    """Make the world or find it, and show its table; some minutes each."""
    be_quiet()
    out.mkdir(parents=True, exist_ok=True)
    typer.echo("1/2 a small world in which a chat model has learnt to refuse (cached by its seed)")
    world = make_safety_world(cache or out / "worlds", Language(seed), Effort(), typer.echo)
    typer.echo("2/2 patching its adapters in every way, and measuring them on held-out rows")
    show(world, ADAPTERS, SEARCH, out)


def show(world: SafetyWorld, adapters: Sequence[str], search: Search, out: Path) -> None:
    """Measure every way to patch these adapters; the table, what it says, and what it cannot."""
    rows = _measured(world, adapters, search)
    (out / TABLE_FILE).write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print_rows(rows)
    for sentence in findings(rows):
        typer.echo(f"- {sentence}")
    typer.echo(f"\n{LIMITS}")
    typer.echo(f"world: {world.folder.absolute()}")
    typer.echo(f"table: {(out / TABLE_FILE).absolute()}")


def _measured(world: SafetyWorld, adapters: Sequence[str], search: Search) -> list[TableRow]:
    """The chat model once, then each adapter's rows."""
    rows: list[TableRow] = []
    total = len(adapters) * (3 + len(search.families))
    with progress("measuring") as on_step:
        safety = made_safety_module(world, world.folder / "safety-module")
        for adapter in adapters:
            for row in AdapterTable(world, adapter, safety, search).rows():
                rows.append(row)
                on_step(len(rows), total, row.way, {})
    return [row for i, row in enumerate(rows) if row.adapter != CHAT or i == 0]


def print_rows(rows: Sequence[TableRow]) -> None:
    """To stdout, in the order that they were made."""
    console = terminal()
    title = f"On held-out rows, with 95 % intervals (seed {rows[0].seed})"
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    names = ["adapter", "way", "refused", "over-refused", "skill", "harm given"]
    for name in [*names, "setting"] if console.width >= WIDE else names:
        table.add_column(name, no_wrap=name != "setting", overflow="fold")
    last = rows[0].adapter
    for row in rows:
        if row.adapter != last:
            table.add_section()
        last = row.adapter
        shown = [row.adapter, row.way, *map(_share, (row.refused, row.over_refused, row.skill))]
        harm = f"{row.harm.count}/{row.harm.n}"
        table.add_row(*shown, harm, *([_setting(row)] if console.width >= WIDE else []))
    console.print(table)


def _setting(row: TableRow) -> str:
    lacking = "" if row.held in (None, True) else " (the nearest: none held on the tuning rows)"
    return f"{row.setting}{lacking}"


def _share(rate: Rate) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
