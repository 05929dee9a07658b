"""What the page lets in and gives away: names are hostile, keys are secret, nothing comes from
elsewhere."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.api.page import POLICY
from app.domain.access import parse_scopes
from app.storage.keys import SqlKeys
from tests.service import Service, running
from tests.web.conftest import opened
from tests.web.kept import HOSTILE, a_report, keep, layers

PAGES = ("/", "/jobs/any", "/compare", "/verdicts", "/webhooks", "/keys", "/docs")


@pytest.mark.parametrize("path", [*PAGES, "/web/js/main.js", "/web/css/tokens.css"])
def test_every_file_of_the_page_has_a_strict_policy_and_is_asked_about_again(
    site: Service, path: str
) -> None:
    answer = httpx.get(site.url + path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert answer.headers["cache-control"] == "no-cache"
    again = httpx.get(site.url + path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.head(site.url + path).headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize(
    "path", ["index.html", "none.js", "..%2f__init__.py", "%2e%2e/__init__.py", "js/%00", ""]
)
def test_nothing_else_is_served(site: Service, path: str) -> None:
    answer = httpx.get(f"{site.url}/web/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_pages_html_has_no_script_or_style_of_its_own(site: Service) -> None:
    html = httpx.get(site.url).text
    assert "<style" not in html
    assert "style=" not in html
    assert html.count("<script") == html.count('<script type="module" src="/web/js/') == 1
    assert "http://" not in html
    assert "https://" not in html


@pytest.fixture(scope="module")
def hostile(site: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job whose report has HTML wherever a stranger's words may stand."""
    found = layers(30)
    found[0] = replace(found[0], module=HOSTILE, kind=HOSTILE, note=HOSTILE)
    report = a_report(found)
    report["warnings"].append(HOSTILE)
    report["unscreened"][0] |= {"name": HOSTILE, "reason": HOSTILE}
    report["serving"][0] |= {"system": HOSTILE, "reasons": [HOSTILE], "source": HOSTILE}
    report["adapter"]["base_model_name_or_path"] = HOSTILE
    report["versions"] = {HOSTILE: HOSTILE}
    assert asdict(found[0])["module"] == HOSTILE
    return keep(site, tmp_path_factory.mktemp("hostile"), report)


@pytest.mark.parametrize("path", ["/jobs/{0}", "/compare?a={0}&b={0}"])
def test_names_that_are_html_stay_text(page: Page, hostile: str, path: str) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(path.format(hostile))
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    if path.startswith("/jobs"):
        page.get_by_role("button", name=HOSTILE).click()
        expect(page.locator("#module-detail h3")).to_have_text(HOSTILE)
        page.get_by_label("Threshold of the cosine").press("Home")
        page.locator(".what-if summary").click()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.pwned") is None
    assert dialogs == []


# --------------------------------------------------------------------------------------------- keys
@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, model_root: Path) -> Iterator[Service]:
    data = tmp_path_factory.mktemp("guarded")
    with running(data, model_root, ADAPTER_SAFETY_AUTH="keys") as service:
        yield service


@pytest.fixture(scope="module")
def admin_key(guarded: Service) -> str:
    keys = SqlKeys(f"sqlite:///{guarded.data}/records.sqlite3")
    _, text = keys.create("operator", "default", parse_scopes("admin"))
    keys.close()
    return text


def give(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("API key").fill(key)
    dialog.get_by_role("button", name="Use this key").click()


def test_a_key_is_asked_for_kept_in_the_tab_alone_and_never_in_an_address(
    browser: Browser, guarded: Service, admin_key: str, tmp_path: Path
) -> None:
    job = keep(guarded, tmp_path, a_report(layers(14)))
    addresses: list[str] = []
    with opened(browser, guarded) as (page, watched):
        watched.allowed.add("401")
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(f"/jobs/{job}")
        give(page, "ask_0123456789abcdef_" + "A" * 43)
        expect(page.get_by_text("The key that was given opens nothing here.")).to_be_visible()
        give(page, admin_key)
        expect(page.get_by_role("heading", name="By layer and kind")).to_be_visible()
        with page.expect_download() as found:
            page.get_by_role("link", name="Report, CSV").click()
        assert Path(found.value.path()).read_text().startswith("module,layer,")
        assert page.evaluate("sessionStorage.length") == 1
        assert page.evaluate("localStorage.length") == 0
        assert page.context.cookies() == []
        page.get_by_role("button", name="Forget the key").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0
    assert not [address for address in addresses if admin_key in address or "ask_" in address]


def test_an_administrator_makes_and_revokes_keys(
    browser: Browser, guarded: Service, admin_key: str
) -> None:
    with opened(browser, guarded) as (page, watched):
        watched.allowed.add("401")
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto("/keys")
        give(page, admin_key)
        page.get_by_label("Name").fill("pipeline")
        page.get_by_role("button", name="Make a key").click()
        secret = page.locator(".secret").inner_text()
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{guarded.url}/v1/jobs", headers=headers).status_code == 200
        page.get_by_role("button", name="Revoke pipeline").click()
        expect(page.get_by_role("row", name="pipeline").locator(".chip")).to_have_text("revoked")
        assert httpx.get(f"{guarded.url}/v1/jobs", headers=headers).status_code == 401


def test_a_webhook_is_made_looked_at_and_deleted(page: Page, site: Service) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto("/webhooks")
    page.get_by_label("Address").fill("https://hooks.invalid/page")
    page.get_by_role("button", name="Make a webhook").click()
    expect(page.locator(".secret")).to_contain_text("whsec_")
    hook = page.get_by_role("region", name="https://hooks.invalid/page")
    hook.get_by_text("Deliveries", exact=True).click()
    expect(hook.get_by_text("Nothing was sent yet.")).to_be_visible()
    hook.get_by_role("button", name="Delete").click()
    expect(hook).to_have_count(0)
