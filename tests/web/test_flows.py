"""What people do on the page, from an adapter's files to a patched one."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from tests.factory import World
from tests.service import Service
from tests.web.conftest import opened

SLIDER = "Threshold of the cosine"


def choose(page: Page, adapter: Path) -> None:
    page.locator("input[type=file][multiple]").set_input_files(
        [adapter / CONFIG_FILE, adapter / WEIGHTS_FILE]
    )
    expect(page.locator("#accepted")).to_contain_text("Accepted · 6 modules, rank 4")


def name_models(page: Page) -> None:
    page.get_by_label("Chat model").fill("chat")
    page.get_by_label("Base model").fill("base")


def start(page: Page) -> str:
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile("/jobs/"))
    return page.url.rpartition("/")[2]


@pytest.fixture(scope="module")
def patched(browser: Browser, site: Service, llama_world: World) -> Iterator[str]:
    """The id of a patch that was made by hand, on the page."""
    with opened(browser, site) as (page, _):
        page.goto("/")
        choose(page, llama_world.adapter)
        name_models(page)
        page.get_by_label("Threshold", exact=True).last.fill("0.3")
        job = start(page)
        expect(page.get_by_role("heading", name="By layer and kind")).to_be_visible()
        yield job


def test_from_upload_to_the_patched_adapter(page: Page, patched: str) -> None:
    page.goto(f"/jobs/{patched}")
    with page.expect_download() as found:
        page.get_by_role("link", name="Patched adapter, zip").click()
    content = zipfile.ZipFile(io.BytesIO(Path(found.value.path()).read_bytes()))
    assert {CONFIG_FILE, WEIGHTS_FILE, "safety_report.json"} <= set(content.namelist())
    report = json.loads(content.read("safety_report.json"))
    assert report["method"]["select"] == {"by": "threshold", "value": 0.3}
    tile = page.locator(".tile.projected dd")
    expect(tile).to_contain_text(f"{report['summary']['projected']} of 6")


def test_reports_come_in_every_format(page: Page, patched: str) -> None:
    page.goto(f"/jobs/{patched}")
    for title, ending in {"JSON": "json", "CSV": "csv", "Markdown": "md", "HTML": "html"}.items():
        with page.expect_download() as found:
            page.get_by_role("link", name=f"Report, {title}").click()
        assert found.value.suggested_filename.endswith(f".{ending}")


def test_the_slider_decides_at_once_and_patches(page: Page, patched: str) -> None:
    page.goto(f"/jobs/{patched}")
    table = page.get_by_role("region", name="Every module")
    slider = page.get_by_label(SLIDER)
    expect(slider).to_be_visible()
    slider.focus()
    slider.press("Home")
    expect(page.locator(".tile.projected dd > span:first-child")).to_have_text("0")
    expect(table.locator(".chip.kept")).to_have_count(6)
    slider.press("End")
    expect(page.locator(".tile.projected dd > span:first-child")).to_have_text("6")
    expect(table.locator(".chip.projected")).to_have_count(6)
    expect(page.get_by_text("The service decides the same.")).to_be_visible()
    page.get_by_role("button", name="Patch with this").click()
    page.wait_for_url(lambda url: "/jobs/" in url and patched not in url)
    expect(page.locator(".tile.projected dd > span:first-child")).to_have_text("6")
    assert page.get_by_label("Threshold as a number").input_value() != "0.3"


def test_a_link_to_a_job_survives_a_reload(page: Page, patched: str) -> None:
    page.goto(f"/jobs/{patched}")
    expect(page.locator("h1")).to_contain_text("Patch of")
    title = page.locator("h1").inner_text()
    page.reload()
    expect(page.locator("h1")).to_have_text(title)


def test_an_archive_is_taken_too(page: Page, llama_world: World, tmp_path: Path) -> None:
    packed = tmp_path / "adapter.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            archive.write(llama_world.adapter / name, name)
    page.goto("/")
    page.locator("input[type=file][multiple]").set_input_files(packed)
    expect(page.locator("#accepted")).to_contain_text("trained on org/chat")


def test_a_folder_with_a_training_in_it_gives_its_outermost_adapter(
    page: Page, llama_world: World, tmp_path: Path
) -> None:
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-10"):
        folder.mkdir()
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            (folder / name).write_bytes((llama_world.adapter / name).read_bytes())
    page.goto("/")
    page.locator("input[webkitdirectory]").set_input_files(tmp_path / "run")
    expect(page.locator("#accepted")).to_be_visible()


def test_what_is_no_adapter_is_said_in_the_services_words(
    browser: Browser, site: Service, tmp_path: Path
) -> None:
    (tmp_path / CONFIG_FILE).write_text("{}")
    (tmp_path / WEIGHTS_FILE).write_bytes(b"no tensors")
    with opened(browser, site) as (page, watched):
        watched.allowed.add("/v1/adapters")
        page.goto("/")
        page.locator("input[type=file][multiple]").set_input_files(tmp_path / CONFIG_FILE)
        expect(page.get_by_role("alert")).to_contain_text("Found: adapter_config.json")
        page.locator("input[type=file][multiple]").set_input_files(
            [tmp_path / CONFIG_FILE, tmp_path / WEIGHTS_FILE]
        )
        expect(page.get_by_role("alert").locator("dd").first).to_be_visible()
        expect(page.get_by_role("button", name="Start")).to_be_disabled()


def test_a_wrong_model_is_said_and_the_form_stays(
    browser: Browser, site: Service, llama_world: World
) -> None:
    with opened(browser, site) as (page, watched):
        watched.allowed.add("/v1/jobs")
        page.goto("/")
        choose(page, llama_world.adapter)
        page.get_by_label("Chat model").fill("nowhere")
        page.get_by_label("Base model").fill("base")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("nowhere")
        expect(page.get_by_label("Base model")).to_have_value("base")


def test_a_start_whose_answer_was_lost_is_made_once(
    browser: Browser, site: Service, llama_world: World
) -> None:
    lost: list[str] = []

    def lose(route: Route) -> None:
        if route.request.method != "POST" or lost:
            route.continue_()
            return
        lost.append(route.fetch().json()["id"])
        route.abort()

    with opened(browser, site) as (page, watched):
        watched.allowed.add("/v1/jobs")
        page.route("**/v1/jobs", lose)
        page.goto("/")
        choose(page, llama_world.adapter)
        name_models(page)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
        assert [start(page)] == lost


def test_an_adapter_is_named_on_the_hub(browser: Browser, site: Service) -> None:
    asked: list[object] = []

    def answer(route: Route) -> None:
        if route.request.method == "GET":
            route.continue_()
            return
        asked.append(route.request.post_data_json)
        said = {"title": "No such repository", "detail": "the hub has no org/none"}
        route.fulfill(status=404, json=said, content_type="application/problem+json")

    with opened(browser, site) as (page, watched):
        watched.allowed.add("/v1/adapters")
        page.route("**/v1/adapters", answer)
        page.goto("/")
        page.get_by_text("From a hub, or one that is here already").click()
        page.get_by_label("Name on the hub").fill("org/none@dev")
        page.get_by_role("button", name="Take it from there").click()
        expect(page.get_by_role("alert")).to_contain_text("the hub has no org/none")
    assert asked == [{"hub": {"repo_id": "org/none", "revision": "dev"}}]


def test_verdicts_are_listed_and_lead_to_their_reports_alone(page: Page) -> None:
    action = {"kind": "open_discussion", "state": "done", "number": 7, "note": ""}
    verdict = {
        "id": "v",
        "state": "done",
        "verdict": "review",
        "why": "3 of 6 modules were not screened",
        "repo": "org/adapter",
        "ref": "refs/heads/main",
        "sha": "5" * 40,
        "received_at": "2026-11-20T10:00:00Z",
        "finished_at": None,
        "dry_run": True,
        "trouble": "",
        "actions": [
            {**action, "url": "https://hub.example/org/adapter/discussions/7"},
            {**action, "url": "javascript:alert(1)"},
        ],
        "links": {"self": "/v1/verdicts/v", "job": "/v1/jobs/abc"},
    }
    page.route("**/v1/verdicts?*", lambda route: route.fulfill(json=one_page(verdict)))
    page.goto("/verdicts")
    expect(page.get_by_text("3 of 6 modules were not screened")).to_be_visible()
    expect(page.get_by_role("link", name="report")).to_have_attribute("href", "/jobs/abc")
    expect(page.get_by_role("link", name="#7")).to_have_count(1)


def test_a_real_verdict_leads_to_its_report(page: Page, reports: dict[str, str]) -> None:
    page.goto("/verdicts")
    expect(page.get_by_text("2 of 224 modules were skipped, not screened")).to_be_visible()
    expect(page.get_by_role("link", name="#7")).to_have_count(1)
    page.get_by_role("link", name="report").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Patch of")
    assert page.url.endswith(f"/jobs/{reports['small']}")


def one_page(*items: object) -> dict[str, object]:
    return {"items": items, "next_cursor": None}


def test_the_api_is_described_without_anything_from_elsewhere(page: Page) -> None:
    page.goto("/docs")
    page.get_by_label("Search routes").fill("post /v1/jobs")
    page.get_by_text("POST /v1/jobs").click()
    expect(page.get_by_role("region", name="Takes application/json")).to_contain_text("chat_model")


def test_two_reports_are_compared_by_module(page: Page, reports: dict[str, str]) -> None:
    page.goto("/compare")
    page.get_by_label("First").select_option(reports["small"])
    page.get_by_label("Second").select_option(reports["score"])
    expect(page.locator("#differences")).to_contain_text("of 224 modules decided otherwise")
    page.get_by_label("Only those").check()
    row = page.locator("tr[aria-rowindex='2'] .chip")
    assert row.nth(0).inner_text() != row.nth(1).inner_text()
    page.reload()
    expect(page.locator("#differences")).to_be_visible()


def test_jobs_are_filtered_and_searched(page: Page, reports: dict[str, str]) -> None:
    page.goto("/")
    page.get_by_label("Status", exact=True).select_option("failed")
    rows = page.locator(".jobs tbody tr")
    expect(rows.locator(".chip.failed").first).to_be_visible()
    expect(rows.locator(".chip.succeeded")).to_have_count(0)
    page.get_by_label("Status", exact=True).select_option("")
    page.get_by_label("Search in this list").fill(reports["score"][:8])
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("score")
