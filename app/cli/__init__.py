"""The command line, `adapter-safety`. Each command imports what it needs when it runs, so that
`inspect` and `--help` never wait for torch."""

import importlib
import sys
from typing import Annotated

import typer

from app import __version__
from app.cli.examples import epilog
from app.cli.leaving import leave
from app.imports import lasting_imports

# Each is a function of `app.cli.NAME`, or its group of commands; a run imports only its own.
COMMANDS = (
    "demo",
    "up",
    "patch",
    "score",
    "inspect",
    "evaluate",
    "frontier",
    "migrate",
    "gc",
    "backup",
    "restore",
    "worker-health",
    "keys",
    "policy",
    "salora",
    "jobs",
)
MODULES = {"restore": "backup"}  # where it is not the command's own


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """What stands before the command."""


def program(*names: str) -> typer.Typer:
    """The command line with the commands that are named, or with all."""
    made = typer.Typer(
        name="adapter-safety",
        help="Check LoRA adapters, patch them with Safe LoRA, and say layer by layer what changed.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        callback=_options,
    )
    for name in names or COMMANDS:
        _add(made, name)
    return made


def _add(made: typer.Typer, name: str) -> None:
    function = name.replace("-", "_")
    module = importlib.import_module(f"app.cli.{MODULES.get(name, function)}")
    found = getattr(module, function)
    if isinstance(found, typer.Typer):
        made.add_typer(found, name=name)
    else:
        made.command(epilog=epilog(name))(found)


def main() -> None:
    """The command line of this process. Raises SystemExit at its end."""
    first = sys.argv[1:2]
    with lasting_imports():
        made = program(*(name for name in first if name in COMMANDS))
    made()


def script() -> None:
    """The entry point of the `adapter-safety` script: `main`, and then nothing else."""
    try:
        main()
    except SystemExit as end:
        leave(end.code)
        raise
