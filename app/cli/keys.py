"""`adapter-safety keys`: who may use a service that others can reach."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.examples import epilog
from app.cli.exits import explained
from app.cli.tables import print_json
from app.config import Settings
from app.domain.access import DEFAULT_TENANT, ApiKey, parse_scopes

if TYPE_CHECKING:
    from app.storage.keys import SqlKeys

keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@keys.command(epilog=epilog("keys create"))
def create(
    name: Annotated[str, typer.Option(help="whose it is, for the list")],
    scope: Annotated[
        str, typer.Option(help="submit, read, transcripts or admin; several with commas")
    ] = "submit,read",
    tenant: Annotated[str, typer.Option(help="whose adapters and jobs it sees")] = DEFAULT_TENANT,
) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    with explained(), _opened() as kept:
        key, text = kept.create(name, tenant, parse_scopes(scope))
        typer.echo(f"id: {key.id}", err=True)
        typer.echo("the key, shown this once:", err=True)
        typer.echo(text)


@keys.command("list", epilog=epilog("keys list"))
def list_keys(
    json_: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
) -> None:
    """List all keys, without their secrets."""
    with explained(), _opened() as kept:
        if json_:
            print_json([_plain(key) for key in kept.all()])
            return
        table = Table("id", "name", "tenant", "scopes", "created", "last used", "state")
        for key in kept.all():
            used = key.last_used_at.strftime("%F %R") if key.last_used_at else "never"
            state = "revoked" if key.revoked_at else "live"
            named = (Text(key.name), key.tenant, ",".join(key.scopes))
            table.add_row(key.id, *named, key.created_at.strftime("%F %R"), used, state)
        Console(width=None if Console().is_terminal else 160).print(table)


@keys.command(epilog=epilog("keys revoke"))
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """From now on the key opens nothing."""
    with explained(), _opened() as kept:
        key = kept.revoke(key_id)
        typer.echo(f"revoked {key.id} ({key.name})")


def _plain(key: ApiKey) -> dict[str, object]:
    """All but the hash of its secret."""
    times = {"created_at": key.created_at, "last_used_at": key.last_used_at}
    times["revoked_at"] = key.revoked_at
    told = {name: at.isoformat() if at else None for name, at in times.items()}
    named = {"id": key.id, "name": key.name, "tenant": key.tenant, "scopes": list(key.scopes)}
    return {**named, **told}


@contextmanager
def _opened() -> "Iterator[SqlKeys]":
    """The keys of the database that the settings name, at this version's schema."""
    from app.storage.keys import SqlKeys  # here: SQLAlchemy takes 0.2 s that --help does not need
    from app.storage.migrate import upgrade

    settings = Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings.resolved_database_url)
    kept = SqlKeys(settings.resolved_database_url)
    try:
        yield kept
    finally:
        kept.close()
