"""Models and adapters of a hub, for the command line."""

import atexit
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TaskID, TransferSpeedColumn

from app.config import Settings
from app.intake.manifest import read_manifest
from app.intake.model_ids import is_hub_id, parse_model_name
from app.intake.opened import OpenedAdapter, open_adapter
from app.jobs.import_adapter import wanted_files
from app.jobs.ports import Models

if TYPE_CHECKING:  # a hub's client takes 0.2 s to import, which a local folder need not wait for
    from app.storage.hub.remote import Download


@cache
def models() -> Models:
    """Those that this process reads, kept until it ends."""
    from workers.models import hub_models

    stack = ExitStack()
    atexit.register(stack.close)
    opened = hub_models(Settings()).opened({}, lambda *_: None, Bars().show)
    return stack.enter_context(opened)


class Bars:
    """A bar on stderr for each model whose bytes are coming."""

    def __init__(self) -> None:
        columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._tasks: dict[str, TaskID] = {}

    def show(self, download: "Download") -> None:
        if not download.total_bytes:
            return
        self._bar.start()
        if download.model not in self._tasks:
            self._tasks[download.model] = self._bar.add_task(f"reading {download.model}")
        task, done = self._tasks[download.model], download.done_bytes
        self._bar.update(task, completed=done, total=download.total_bytes)
        if done >= download.total_bytes:
            self._bar.remove_task(self._tasks.pop(download.model))
        if not self._tasks:
            self._bar.stop()


@contextmanager
def open_named(adapter: Path) -> Iterator[OpenedAdapter]:
    """A folder or an archive, else `org/name` or `org/name@revision` on the hub. Raises what
    `open_adapter`, `HubReader` and `wanted_files` raise."""
    if adapter.exists() or not is_hub_id(str(adapter).partition("@")[0]):
        with open_adapter(adapter) as opened:
            yield opened
        return
    with tempfile.TemporaryDirectory(prefix="adapter-safety-") as folder:
        _download(str(adapter), Path(folder))
        yield OpenedAdapter(Path(folder), read_manifest(Path(folder)))


def _download(adapter: str, folder: Path) -> None:
    from app.storage.hub.reader import Hub

    name, hub = parse_model_name(adapter, field="adapter"), Hub()
    commit = hub.commit(name.id, name.revision, field="adapter")
    for file in wanted_files(commit, Settings().max_upload_bytes):
        hub.download(commit, file, folder / file.name)
