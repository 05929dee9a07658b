"""Webhooks and keys on the page, with real deliveries to a real receiver."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.factory import World
from tests.service import Service, running
from tests.uploads import parts
from tests.web.conftest import opened
from tests.web.test_screens import LOOKS
from tests.webhooks_receiver import Answer, Receiver


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory, model_root: Path) -> Iterator[Service]:
    """A service that may call this machine."""
    data = tmp_path_factory.mktemp("calling")
    allowed = {"ADAPTER_SAFETY_WEBHOOK_ALLOW": "127.0.0.0/8"}
    with running(data, model_root, ADAPTER_SAFETY_WEBHOOK_EVERY_S="0.1", **allowed) as service:
        yield service


def run_job(service: Service, world: World) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        adapter = client.post("/v1/adapters", files=parts(world.adapter)).json()["id"]
        body = {"kind": "score", "adapter": adapter, "base_model": "base", "chat_model": "chat"}
        job = client.post("/v1/jobs", json=body, headers={"Prefer": "wait=60"}).json()
    assert job["status"] == "succeeded", job


def make_hook(page: Page, url: str) -> None:
    page.goto("/webhooks")
    page.get_by_label("Address").fill(url)
    page.get_by_label("Description").fill("the pipeline's")
    page.get_by_role("button", name="Make a webhook").click()
    expect(page.locator(".secret")).to_contain_text("whsec_")


def test_a_delivery_is_looked_at_and_sent_again(
    browser: Browser, calling: Service, llama_world: World
) -> None:
    with opened(browser, calling) as (page, _), Receiver(Answer(200, body=b"thanks")) as receiver:
        page.on("dialog", lambda dialog: dialog.accept())
        make_hook(page, receiver.url)
        run_job(calling, llama_world)
        first = receiver.wait_for(1)[0]
        hook = page.get_by_role("region", name=receiver.url)
        hook.get_by_text("Deliveries", exact=True).click()
        expect(hook.locator("td .chip")).to_have_text("delivered")
        hook.get_by_role("button", name="Look at job.succeeded").click()
        expect(hook.locator("pre")).to_have_text(first.body.decode())
        expect(hook.get_by_text("200 thanks")).to_be_visible()
        hook.get_by_role("button", name="Send job.succeeded").click()
        second = receiver.wait_for(2)[1]
        assert second.body == first.body
        assert second.headers["webhook-id"] == first.headers["webhook-id"]
        hook.get_by_role("button", name="Delete").click()
        expect(hook).to_have_count(0)


def test_a_webhook_that_answers_gone_is_shown_as_disabled_and_enabled_again(
    browser: Browser, calling: Service, llama_world: World
) -> None:
    with opened(browser, calling) as (page, _), Receiver(Answer(410), Answer()) as receiver:
        page.on("dialog", lambda dialog: dialog.accept())
        make_hook(page, receiver.url)
        run_job(calling, llama_world)
        receiver.wait_for(1)
        hook = page.get_by_role("region", name=receiver.url)
        for _ in range(50):  # until the answer is noted: the page asks once each time
            page.reload()
            expect(hook.locator(".chip").first).to_be_visible()
            if hook.get_by_role("button", name="Enable").count():
                break
        expect(hook.locator(".chip").first).to_have_text("disabled")
        hook.get_by_role("button", name="Enable").click()
        expect(hook.locator(".chip").first).to_have_text("live")
        hook.get_by_role("button", name="Delete").click()
        expect(hook).to_have_count(0)


def test_webhooks_and_keys_are_drawn_with_what_there_is(
    browser: Browser, calling: Service, llama_world: World, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("ADAPTER_SAFETY_SCREENS") or tmp_path)
    with opened(browser, calling) as (page, _), Receiver() as receiver:
        page.on("dialog", lambda dialog: dialog.accept())
        make_hook(page, receiver.url)
        run_job(calling, llama_world)
        receiver.wait_for(1)
        page.goto("/keys")
        page.get_by_label("Name").fill("pipeline")
        page.get_by_role("button", name="Make a key").click()
        expect(page.get_by_role("row", name="pipeline")).to_be_visible()
        for look, options in LOOKS.items():
            with opened(browser, calling, **options) as (other, _):
                draw(other, "keys", folder / f"keys-with-one-{look}.png")
                draw(other, "webhooks", folder / f"webhooks-with-one-{look}.png")
        page.get_by_role("button", name="Revoke pipeline").click()
        expect(page.get_by_role("row", name="pipeline").locator(".chip")).to_have_text("revoked")


def draw(page: Page, name: str, path: Path) -> None:
    page.goto(f"/{name}")
    if name == "webhooks":
        page.get_by_text("Deliveries", exact=True).click()
        expect(page.locator("td .chip").first).to_have_text("delivered")
    expect(page.locator("main .chip").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.screenshot(path=path, full_page=True)
