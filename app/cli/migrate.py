"""`adapter-safety migrate`: bring the database to this version's schema."""

import time
from typing import Annotated

import typer

from app.cli.exits import FAILED, explained, fail
from app.config import Settings
from app.domain.errors import Unavailable

LOOK_EVERY_S = 1.0


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="change nothing; exit 3 unless it is up to date")
    ] = False,
    wait: Annotated[
        float, typer.Option(help="with --check: seconds to wait for it to be", min=0)
    ] = 0.0,
) -> None:
    """Create or upgrade the database tables (`up` does so by itself)."""
    from app.storage.migrate import upgrade  # here: it takes 0.2 s that no other command needs

    with explained():
        settings = Settings()
        if check:
            _await_schema(settings.resolved_database_url, wait)
        else:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            upgrade(settings.resolved_database_url)
    typer.echo("the database is up to date")


def _await_schema(url: str, wait_s: float) -> None:
    from app.storage.migrate import head  # here, as above

    deadline = time.monotonic() + wait_s
    while (found := _schema(url)) != head():
        if time.monotonic() >= deadline:
            raise fail(f"the database's schema is {found}, this version's is {head()}", FAILED)
        time.sleep(LOOK_EVERY_S)


def _schema(url: str) -> str:
    from app.storage.migrate import current  # here, as above

    try:
        return current(url) or "not there"
    except Unavailable:
        return "not to be reached"
