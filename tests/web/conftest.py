"""A real browser before a real service."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.conftest import missing
from tests.jobs.measured_reports import evaluation, frontier
from tests.service import Service, running
from tests.web.kept import a_report, keep, keep_failed, keep_verdict, layers

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # because it keeps an event loop running, which others start
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        missing(f"none of {', '.join(CHROMIUM)} is on PATH to test the page with")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, model_root: Path) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("site"), model_root) as service:
        yield service


@dataclass
class Watched:
    """What a page did that no page may do."""

    host: str
    allowed: set[str] = field(default_factory=set)  # parts of console errors that a test provokes
    errors: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> Page:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)
        return page

    def _said(self, message: ConsoleMessage) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(part in text for part in self.allowed):
            self.errors.append(text)

    def _asked(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.host:
            self.strays.append(request.url)

    def check(self) -> None:
        assert self.errors == []
        assert self.strays == []


@contextmanager
def opened(browser: Browser, service: Service, **options: Any) -> Iterator[tuple[Page, Watched]]:
    """A page of its own context, which nothing may go wrong on."""
    context: BrowserContext = browser.new_context(base_url=service.url, **options)
    context.set_default_timeout(20_000)
    watched = Watched(urlsplit(service.url).netloc)
    page = watched.watch(context.new_page())
    yield page, watched
    context.close()
    watched.check()


@pytest.fixture
def page(browser: Browser, site: Service) -> Iterator[Page]:
    with opened(browser, site) as (page, _):
        yield page


@pytest.fixture(scope="session")
def reports(site: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Jobs with reports of 224 and 2,000 modules, of what was measured, and one that failed."""
    folder = tmp_path_factory.mktemp("reports")
    small = keep(site, folder, a_report(layers(224)))
    keep_verdict(site, small)
    return {
        "small": small,
        "large": keep(site, folder, a_report(layers(2000))),
        "score": keep(site, folder, {**a_report(layers(224, seed=4)), "kind": "score"}, "score"),
        "frontier": keep(site, folder, frontier().as_json(), "frontier"),
        "evaluation": keep(site, folder, evaluation().as_json(), "evaluate"),
        "failed": keep_failed(site),
    }
