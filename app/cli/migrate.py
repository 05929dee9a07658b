"""`adapter-safety migrate`: bring the database to this version's schema."""

import typer

from app.config import Settings
from app.storage.migrate import upgrade


def migrate() -> None:
    """Create or upgrade the database tables (`up` does so by itself)."""
    settings = Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings.resolved_database_url)
    typer.echo("the database is up to date")
