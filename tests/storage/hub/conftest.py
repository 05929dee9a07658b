"""Models on a hub, and the readers of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.jobs.ports import Models
from app.storage.hub.cache import HubCache
from app.storage.hub.models import HubModels
from app.storage.hub.reader import Hub
from app.storage.hub.remote import Download
from app.storage.hub.session import HubSession
from app.storage.models import FolderModels
from tests.hub.server import LocalHub
from tests.hub_models import HubWorld, publish, shorten_pauses

GIB = 1 << 30


@dataclass
class Reader:
    """`HubModels` with what it tells."""

    models: HubModels
    notes: dict[str, str] = field(default_factory=dict)
    downloads: list[Download] = field(default_factory=list)
    on_download: Callable[[Download], None] = lambda _: None

    @contextmanager
    def opened(self, pins: dict[str, str] | None = None) -> Iterator[Models]:
        with self.models.opened(pins or {}, self.notes.__setitem__, self._told) as found:
            yield found

    def _told(self, download: Download) -> None:
        self.downloads.append(download)
        self.on_download(download)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)


@pytest.fixture
def commits(local_hub: LocalHub, hub_world: HubWorld) -> dict[str, str]:
    return publish(local_hub, hub_world)


def a_reader(
    root: Path, *, token: str | None = None, limit_bytes: int = GIB, models: Path | None = None
) -> Reader:
    folders = FolderModels(models or root / "models", with_hub=True)
    hub = Hub(HubSession(token=token or False), connections=4)
    return Reader(HubModels(folders, hub, HubCache(root / "hub", limit_bytes)))


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return a_reader(tmp_path)
