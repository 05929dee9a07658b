"""`adapter-safety backup` and `restore`: a service on one machine, as a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import FAILED, explained, fail
from app.config import Settings

if TYPE_CHECKING:
    from app.storage.backup import Copied

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="the backup's folder")]


def backup(folder: Folder) -> None:
    """Copy the database and every file that it names, while the service may be at work.

    For a service with SQLite. In a folder that has an earlier backup, only new files are copied.
    """
    from app.storage.artifacts import ObjectArtifacts  # here, because --help needs no database
    from app.storage.backup import back_up

    with explained():
        settings = Settings()
        artifacts = ObjectArtifacts(settings.resolved_storage_url)
        copied = back_up(settings.resolved_database_url, artifacts, folder)
    _tell(copied, f"saved in {folder}")


def restore(folder: Folder) -> None:
    """Put a backup into the data folder of the settings, where no service is yet.

    An older version's backup is brought to this version's schema.
    """
    from app.storage.artifacts import ObjectArtifacts  # here, as above
    from app.storage.backup import restore as put_back

    with explained():
        settings = Settings()
        artifacts = ObjectArtifacts(settings.resolved_storage_url)
        copied = put_back(folder, settings.resolved_database_url, artifacts)
    _tell(copied, f"restored to {settings.data_dir}")


def _tell(copied: "Copied", where: str) -> None:
    size = f"{copied.files} files, {copied.size_bytes} bytes, {copied.new} of them new"
    typer.echo(f"{where}: the database at {copied.revision}; {size}")
    if copied.damaged:
        raise fail(f"missing or damaged: {', '.join(copied.damaged)}", FAILED)
