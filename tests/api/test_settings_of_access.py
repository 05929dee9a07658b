"""What the settings of access do to the application."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.config import Settings
from app.main import create_app
from tests.service import running

Make = Callable[..., Settings]


@pytest.fixture
def settings(tmp_path: Path) -> Make:
    def make(**changes: object) -> Settings:
        return Settings(data_dir=tmp_path, **changes)

    return make


async def seen_by(proxies: object, came_from: str) -> tuple[str, str]:
    """The client and the scheme that the application sees behind `X-Forwarded-*`."""
    seen = {}

    async def inner(scope: Scope, _: Receive, __: Send) -> None:
        seen.update(scope)

    headers = [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")]
    scope = {"type": "http", "scheme": "http", "client": (came_from, 1), "headers": headers}
    await ProxyHeadersMiddleware(inner, **proxies)(scope, None, None)  # type: ignore[arg-type] # it calls neither
    return seen["client"][0], seen["scheme"]


@pytest.mark.parametrize(
    ("came_from", "expected"),
    [("10.0.0.7", ("203.0.113.9", "https")), ("198.51.100.1", ("198.51.100.1", "http"))],
)
def test_only_a_proxy_that_is_named_speaks_for_its_clients(
    settings: Make, came_from: str, expected: tuple[str, str]
) -> None:
    app = create_app(settings(trusted_proxies="10.0.0.0/8, 192.0.2.1"))
    (found,) = [m for m in app.user_middleware if m.cls is ProxyHeadersMiddleware]
    assert asyncio.run(seen_by(found.kwargs, came_from)) == expected


def test_without_a_setting_no_proxy_is_trusted(settings: Make) -> None:
    kinds = {middleware.cls for middleware in create_app(settings()).user_middleware}
    assert ProxyHeadersMiddleware not in kinds


def test_names_are_given_with_commas(monkeypatch: pytest.MonkeyPatch, settings: Make) -> None:
    monkeypatch.setenv("ADAPTER_SAFETY_ALLOWED_MODELS", "org/*, , other/model")
    assert settings().allowed_models == ("org/*", "other/model")


def test_an_application_by_itself_asks_for_keys(settings: Make) -> None:
    assert create_app(settings()).state.services.open_door is None
    assert create_app(settings(auth="none")).state.services.open_door is not None


def test_a_name_that_is_allowed_is_answered(tmp_path: Path, model_root: Path) -> None:
    with running(tmp_path, model_root, ADAPTER_SAFETY_ALLOWED_HOSTS="box.internal") as service:
        for host, status in (("box.internal", 200), ("127.0.0.1", 403)):
            answer = httpx.get(f"{service.url}/v1/jobs", headers={"Host": host})
            assert answer.status_code == status
