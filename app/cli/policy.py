"""`adapter-safety policy`: look at a moderation policy before it is in force."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.examples import epilog
from app.cli.exits import NOT_HELD, explained

if TYPE_CHECKING:
    from app.domain.policy import Policy

policy = typer.Typer(help="Check a moderation policy.", no_args_is_help=True)


@policy.callback()
def _policy() -> None:
    """Check a moderation policy."""


@policy.command(epilog=epilog("policy check"))
def check(
    file: Annotated[Path, typer.Argument(help="the YAML file")],
    base_model: Annotated[
        str | None,
        typer.Option(help="show only the pair for this base_model_name_or_path, or exit 1"),
    ] = None,
) -> None:
    """Validate a policy and print what it resolves to. Exit 0 sound, 1 no such pair, 2 refused."""
    from app.api.policy_file import read_policy  # here: the schemas take a moment to import

    with explained():
        found = read_policy(file)
    if base_model is not None:
        _print_pair(found, base_model)
        return
    typer.echo(f"version {found.version}")
    typer.echo(f"tenant {found.tenant}{', dry run' if found.dry_run else ''}")
    _print_pairs(found)
    for verdict, kinds in found.actions.items():
        typer.echo(f"{verdict}: {', '.join(kinds) or 'nothing'}")


def _print_pair(found: "Policy", name: str) -> None:
    """Raises typer.Exit(1) where no pair knows the name."""
    plan = found.plan("", name)
    if plan.chat_model is None:
        typer.echo(f"no pair knows {name}", err=True)
        raise typer.Exit(NOT_HELD)
    typer.echo(f"pair {plan.pair}: base {plan.base_model or '-'}, chat {plan.chat_model}")


def _print_pairs(found: "Policy") -> None:
    table = Table("", "base_model_name_or_path", "base model", "chat model")
    for i, pair in enumerate(found.pairs):
        cells = (Text(text) for text in (pair.match, pair.base or "-", pair.chat))
        table.add_row(str(i), *cells)
    Console(width=None if Console().is_terminal else 160).print(table)
