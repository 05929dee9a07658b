"""Every page is drawn in both themes and at a phone's width. Set ADAPTER_SAFETY_SCREENS to a folder
to look at the pictures."""

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.service import Service
from tests.web.conftest import opened

WIDE = {"viewport": {"width": 1280, "height": 900}}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {**WIDE, "color_scheme": "light"},
    "dark": {**WIDE, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
}
PAGES = {
    "home": "/",
    "report": "/jobs/{small}",
    "large": "/jobs/{large}",
    "failed": "/jobs/{failed}",
    "frontier": "/jobs/{frontier}",
    "evaluation": "/jobs/{evaluation}",
    "compare": "/compare?a={small}&b={score}",
    "verdicts": "/verdicts",
    "webhooks": "/webhooks",
    "keys": "/keys",
    "docs": "/docs",
}
DRAWN = {
    "report": "tr[aria-rowindex] .chip",
    "large": "tr[aria-rowindex] .chip",
    "frontier": ".plot",
    "evaluation": "main table",
    "compare": "td .chip",
    "failed": ".note.bad",
    "verdicts": "td .chip",
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_drawn(
    browser: Browser, site: Service, reports: dict[str, str], tmp_path: Path, look: str
) -> None:
    folder = Path(os.environ.get("ADAPTER_SAFETY_SCREENS") or tmp_path)
    with opened(browser, site, **LOOKS[look]) as (page, watched):
        watched.allowed |= {"/v1/verdicts"}
        for name, path in PAGES.items():
            if name == "large" and look != "light":
                continue  # the same with more rows
            page.goto(path.format(**reports))
            expect(page.locator(DRAWN.get(name, "main .panel")).first).to_be_visible()
            page.wait_for_timeout(100)  # for what is drawn in the next frames
            wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wider <= 0, f"{name} is {wider} pixels wider than a {look}"
            page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
            if name == "report":
                page.get_by_role("button", name="model.layers.0.mlp.up_proj").click()
                page.get_by_label("Threshold of the cosine").fill("0.5")
                expect(page.get_by_text("The service decides the same.")).to_be_visible()
                page.screenshot(path=folder / f"moved-{look}.png", full_page=True)
                page.emulate_media(media="print")
                page.evaluate("dispatchEvent(new Event('beforeprint'))")
                page.screenshot(path=folder / f"print-{look}.png", full_page=True)
                page.emulate_media(media="screen")
