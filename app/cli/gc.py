"""`adapter-safety gc`: take away what is over its time."""

from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.exits import explained
from app.config import Settings


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Take away ended jobs, adapters and files that are over their time, once.

    The times are settings (ADAPTER_SAFETY_RESULTS_DAYS, ADAPTER_SAFETY_ADAPTERS_DAYS); the API does
    the same by itself, every ADAPTER_SAFETY_GC_EVERY_S seconds.
    """
    from app.main import wire  # here: it takes half a second that no other command needs

    with explained():
        settings = Settings()
        found = wire(settings).collect(settings.retention, dry_run=dry_run)
    said = "would go" if dry_run else "gone"
    parts = ", ".join(f"{name} {count}" for name, count in asdict(found).items())
    typer.echo(f"{said}: {parts}")
