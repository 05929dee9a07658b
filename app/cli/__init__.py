"""The command line, `adapter-safety`. Each command imports what it needs when it runs, so that
`inspect` and `--help` never wait for torch."""

import typer

from app.cli.demo import demo
from app.cli.inspect import inspect
from app.cli.migrate import migrate
from app.cli.patch import patch
from app.cli.up import up

app = typer.Typer(
    name="adapter-safety",
    help="Check LoRA adapters, patch them with Safe LoRA, and say layer by layer what changed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (demo, up, patch, inspect, migrate):
    app.command()(command)


def main() -> None:
    """The entry point of the `adapter-safety` script."""
    app()
