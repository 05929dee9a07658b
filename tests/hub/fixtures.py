"""`local_hub`: a hub of a test's own, which huggingface_hub in this process may reach."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.hub.server import LocalHub

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """Started, empty, and stopped after the test.

    The tests' HF_HUB_OFFLINE, which huggingface_hub keeps from its import in one constant and
    asks at each request, is off for this test only. What names no endpoint comes here too, so
    that no request can leave the machine. A process that the test starts is offline still, unless
    it gets `local_hub.environment()`.
    """
    with LocalHub() as hub:
        go_online(monkeypatch, hub.endpoint, tmp_path / "hub-cache")
        yield hub
        _forget_connections()
    assert not hub.crashes, "\n".join(hub.crashes)


def go_online(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Let huggingface_hub make requests, to this endpoint unless it is told another."""
    from huggingface_hub import constants

    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # because only HTTP is served
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def api_of(hub: LocalHub, token: str | None = None) -> "HfApi":
    """The library's client; a stranger's without a token."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.endpoint, token=token or False)


def _forget_connections() -> None:
    from huggingface_hub import close_session

    close_session()
