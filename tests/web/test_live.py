"""A job under way: progress, cancel, and a service that goes away and comes back."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect

from app.domain.errors import TooManyAttempts
from app.domain.job import Fault
from app.storage.events import RedisEvents
from tests.samples import a_job, an_adapter
from tests.service import Service, start
from tests.web.conftest import opened
from tests.web.kept import keep_running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, model_root: Path, redis_url: str
) -> Iterator[list[Service]]:
    """The service that runs now, the last of the list."""
    data = tmp_path_factory.mktemp("live")
    services = [start(data, model_root, ADAPTER_SAFETY_REDIS_URL=redis_url)]
    yield services
    services[-1].stop()


@pytest.fixture(scope="module")
def events(redis_url: str) -> RedisEvents:
    return RedisEvents(redis_url)


def told(page: Page, text: str) -> Locator:
    """What is to be seen; now and then it is said as well."""
    return page.get_by_role("region", name="Progress").get_by_text(text).first


def module(events: RedisEvents, job: str, done: int, total: int = 10) -> None:
    said = {"done": done, "total": total, "module": f"model.layers.{done}.q_proj", "cosine": 0.5}
    events.publish(job, "module", said)


def end(service: Service, job: str, status: str, fault: Fault | None = None) -> None:
    with service.stores() as (records, _):
        records.finish(job, fence=1, status=status, fault=fault)


def test_a_queued_job_is_cancelled_at_once(browser: Browser, live: list[Service]) -> None:
    with live[-1].stores() as (records, _):
        adapter = an_adapter(base_model_name="org/chat")
        records.add_adapter(adapter)
        job = records.add_job(a_job(adapter), None)
    with opened(browser, live[-1]) as (page, _):
        page.goto(f"/jobs/{job.id}")
        expect(told(page, "Queued: a worker takes it")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("Nothing was written.")).to_be_visible()
        expect(page.locator(".head .chip")).to_have_text("cancelled")


def test_a_running_job_shows_how_far_it_is_and_what_it_reads(
    browser: Browser, live: list[Service], events: RedisEvents
) -> None:
    job = keep_running(live[-1])
    with opened(browser, live[-1]) as (page, _):
        page.goto(f"/jobs/{job}")
        read = {"model": "org/chat", "done_bytes": 3 << 20, "total_bytes": 12 << 20}
        events.publish(job, "download", read)
        expect(page.get_by_text("3.0 MiB of 12 MiB read")).to_be_visible()
        for done in range(1, 6):
            module(events, job, done)
            page.wait_for_timeout(60)
        expect(told(page, "5 of 10 modules, less than a second left")).to_be_visible()
        expect(page.get_by_role("progressbar", name="Progress")).to_have_attribute("value", "5")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Cancelling")).to_be_disabled()
        end(live[-1], job, "cancelled")
        expect(page.get_by_text("Nothing was written.")).to_be_visible()


def test_a_page_comes_back_after_the_service_and_misses_nothing(
    browser: Browser, live: list[Service], events: RedisEvents, model_root: Path
) -> None:
    old = live[-1]
    job = keep_running(old)
    resumed: list[str | None] = []
    with opened(browser, old) as (page, watched):
        watched.allowed |= {"/events"}
        page.on("request", lambda request: resumed.append(last_id(request)))
        page.goto(f"/jobs/{job}")
        module(events, job, 3)
        expect(told(page, "3 of 10 modules")).to_be_visible()
        old.stop()
        expect(page.get_by_text("The connection is lost.")).to_be_visible()
        module(events, job, 4)
        port = urlsplit(old.url).port
        assert port
        live.append(start(old.data, model_root, port, **old.settings))
        expect(told(page, "4 of 10 modules")).to_be_visible()
        expect(page.get_by_text("The connection is lost.")).to_be_hidden()
        assert any(resumed)
        end(live[-1], job, "failed", Fault.of(TooManyAttempts(attempts=5)))
        says_why(page)


def last_id(request: Request) -> str | None:
    return request.headers.get("last-event-id")


def says_why(page: Page) -> None:
    note = page.get_by_role("alert")
    expect(note.get_by_role("heading")).to_have_text(TooManyAttempts.title)
    expect(note).to_contain_text(str(TooManyAttempts(attempts=5)))
    expect(note.locator("dl")).to_contain_text("attempts")


def test_a_job_that_never_was_is_said(browser: Browser, live: list[Service]) -> None:
    with opened(browser, live[-1]) as (page, watched):
        watched.allowed.add("/v1/jobs/none")
        page.goto("/jobs/none")
        expect(page.get_by_role("alert")).to_contain_text("none")
