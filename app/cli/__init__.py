"""The command line, `adapter-safety`. Each command imports what it needs when it runs, so that
`inspect` and `--help` never wait for torch."""

from typing import Annotated

import typer

from app import __version__
from app.cli.backup import backup, restore
from app.cli.demo import demo
from app.cli.evaluate import evaluate
from app.cli.examples import epilog
from app.cli.frontier import frontier
from app.cli.gc import gc
from app.cli.inspect import inspect
from app.cli.jobs import jobs
from app.cli.keys import keys
from app.cli.migrate import migrate
from app.cli.patch import patch
from app.cli.policy import policy
from app.cli.salora import salora
from app.cli.score import score
from app.cli.up import up
from app.cli.worker_health import worker_health

app = typer.Typer(
    name="adapter-safety",
    help="Check LoRA adapters, patch them with Safe LoRA, and say layer by layer what changed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """What stands before the command."""


COMMANDS = (
    demo,
    up,
    patch,
    score,
    inspect,
    evaluate,
    frontier,
    migrate,
    gc,
    backup,
    restore,
    worker_health,
)
for command in COMMANDS:
    app.command(epilog=epilog(command.__name__.replace("_", "-")))(command)
app.add_typer(keys, name="keys")
app.add_typer(policy, name="policy")
app.add_typer(salora, name="salora")
app.add_typer(jobs, name="jobs")


def main() -> None:
    """The entry point of the `adapter-safety` script."""
    app()
