"""The site: whole, strict, and nothing in it comes from another host."""

import functools
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.docs.site import DOCS, ROOT, TOP, build, configuration, in_navigation, pages
from tests.web.conftest import browser as browser

FROM_ELSEWHERE = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?https?:""")

OURS = re.compile(r"\b(?:tests|app|workers|docker)/[\w/.-]*\w\.(?:py|ya?ml|json|txt)\b")
PICTURE = re.compile(r"""<img[^>]+src=["']([^"']+)""")


class Quiet(SimpleHTTPRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Requests are no news."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def asked(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page, and where it sent requests to."""
    hosts: list[str] = []

    def note(request: Request) -> None:
        hosts.append(urlsplit(request.url).netloc)

    context = browser.new_context()
    page = context.new_page()
    page.on("request", note)
    yield page, hosts
    context.close()


def test_every_page_is_in_the_navigation_and_every_entry_is_there() -> None:
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    there |= {"index.md", *TOP} - {"README.md"}
    assert sorted(in_navigation(configuration()["nav"])) == sorted(there)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_files_of_ours_that_the_page_names_are_there(page: Path) -> None:
    """Its proofs above all. DECISIONS.md tells of what was, too."""
    if page.name == "DECISIONS.md":
        return
    for name in set(OURS.findall(page.read_text(encoding="utf-8"))):
        assert (ROOT / name).exists(), name


def test_the_pages_name_no_file_of_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        found = FROM_ELSEWHERE.findall(page.read_text(encoding="utf-8"))
        assert [each for each in found if 'rel="canonical"' not in each] == [], page.name


def test_every_picture_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        for source in PICTURE.findall(page.read_text(encoding="utf-8")):
            found = source.startswith("data:") or (page.parent / source).is_file()
            assert found, f"{page.name}: {source}"


def test_opened_and_searched_it_asks_nobody_else(
    address: str, asked: tuple[Page, list[str]]
) -> None:
    page, hosts = asked
    for name in ("index", "methods", "architecture", "reference/api"):
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
    search(page, "lease")
    assert set(hosts) == {urlsplit(address).netloc}


def search(page: Page, words: str) -> None:
    """By keys, because the site's script looks at the box when a key comes up; again, because what
    is typed before it listens is lost."""
    box, found = page.locator(".md-search__input"), page.locator(".md-search-result__item").first
    for _ in range(8):
        box.fill("")
        box.press_sequentially(words)
        with suppress(PlaywrightTimeout):
            found.wait_for(timeout=5_000)
            return
    raise AssertionError(f"nothing is found by {words!r}")


def test_formulas_are_mathml_and_none_is_left_as_it_was_written(site: Path) -> None:
    text = (site / "methods.html").read_text(encoding="utf-8")
    assert text.count("<math ") > 20
    assert "arithmatex" not in text
    assert not re.search(
        r"\\(frac|lVert|mathbb|top)\b", re.sub(r"<annotation.*?</annotation>", "", text)
    )
