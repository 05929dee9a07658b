"""/metrics: who may see it, and what it counts."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.config import Settings
from app.main import create_app
from tests.faults.checks import problem

Make = Callable[..., TestClient]
Key = tuple[str, frozenset[tuple[str, str]]]  # a sample's name and labels
TOKEN = "t0ken of the scraper"


@pytest.fixture
def client(sqlite_with_schema: Path, redis_url: str, tmp_path: Path) -> Make:
    """Of an application that nobody serves, so without its rounds."""

    def make(**changes: object) -> TestClient:
        url = f"sqlite:///{sqlite_with_schema}"
        settings = Settings(data_dir=tmp_path, database_url=url, redis_url=redis_url, **changes)
        return TestClient(create_app(settings), base_url="http://127.0.0.1")

    return make


def samples(client: TestClient, **headers: str) -> dict[Key, float]:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> Key:
    return f"adapter_safety_{name}", frozenset(labels.items())


def test_with_keys_the_figures_are_for_the_metrics_token_alone(client: Make) -> None:
    service = client(metrics_token=TOKEN)
    assert samples(service, Authorization=f"Bearer {TOKEN}")
    for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}):
        assert problem(service.get("/metrics", headers=wrong))["status"] == 401


def test_with_keys_and_no_token_nobody_sees_the_figures(client: Make) -> None:
    for token in (None, ""):
        service = client(metrics_token=token)
        for given in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            assert service.get("/metrics", headers=given).status_code == 401


def test_without_keys_this_machine_sees_the_figures_and_no_other_name_does(client: Make) -> None:
    service = client(auth="none")
    assert samples(service)
    assert service.get("/metrics", headers={"Host": "evil.example"}).status_code == 403


def test_no_tenants_key_opens_them(client: Make) -> None:
    service = client()
    keys = service.app.state.services.keys
    _, text = keys.create("admin", "team", ("admin",))
    headers = {"Authorization": f"Bearer {text}"}
    assert service.get("/v1/jobs", headers=headers).status_code == 200
    assert service.get("/metrics", headers=headers).status_code == 401


def test_requests_are_counted_by_their_routes_template(client: Make) -> None:
    service = client(auth="none")
    for path in ("/v1/jobs/one", "/v1/jobs/two", "/nowhere/one", "/nowhere/two"):
        service.get(path)
    service.request("BREW", "/v1/jobs")
    found = samples(service)
    count = "http_requests_total"
    of_jobs = {"method": "GET", "route": "/v1/jobs/{job_id}", "status": "404"}
    assert found[key(count, **of_jobs)] == 2
    assert found[key(count, method="GET", route="none", status="404")] == 2
    name, other = key(count)[0], ("method", "other")
    others = [labels for found_name, labels in found if found_name == name and other in labels]
    assert len(others) == 1
    assert "nowhere" not in str(found)


def test_refused_uploads_are_counted_by_their_problem(client: Make) -> None:
    service = client(auth="none", max_upload_bytes=10)
    too_large = {"weights": ("w", b"0" * (1 << 17))}
    service.post("/v1/adapters", files={"config": ("adapter_config.json", b"{}")})
    service.post("/v1/adapters", files=too_large)
    service.post("/v1/jobs", json={})
    found = {
        dict(labels)["problem"]: value
        for (name, labels), value in samples(service).items()
        if name == "adapter_safety_uploads_refused_total"
    }
    assert found == {"missing-file": 1, "too-large": 1}


def test_a_bug_is_counted_as_one(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    service = client(auth="none")
    monkeypatch.setattr(type(service.app.state.services.events), "workers_alive", lambda _: 1 / 0)
    service.get("/readyz")
    monkeypatch.undo()
    wanted = {"method": "GET", "route": "/readyz", "status": "500"}
    assert samples(service)[key("http_requests_total", **wanted)] == 1


def test_every_kind_and_status_of_jobs_is_told_though_there_is_none(client: Make) -> None:
    found = samples(client(auth="none"))
    assert found[key("jobs", kind="frontier", status="failed")] == 0
    assert found[key("webhook_deliveries", state="pending")] == 0
    assert found[key("oldest_queued_job_age_seconds")] == 0


def test_a_part_that_is_away_is_told_and_costs_the_others_nothing(client: Make) -> None:
    service = client(auth="none")
    service.app.state.services.queue._redis_url = "unix:///no/such.sock"
    found = samples(service)
    assert found[key("part_up", part="broker")] == 0
    assert found[key("part_up", part="database")] == 1
    assert key("queue_messages") not in found
    assert key("oldest_queued_job_age_seconds") in found


def test_a_path_of_any_length_takes_a_short_line_of_the_log(
    client: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "app.api.observed"):
        client().get("/" + "x" * 10_000)
    (line,) = [record for record in caplog.records if record.name == "app.api.observed"]
    assert len(line.__dict__["path"]) == 512


def test_a_storage_that_hangs_holds_one_look_and_not_the_process(client: Make) -> None:
    app, release, looks = cast(FastAPI, client().app), threading.Event(), list[int]()

    def hang() -> None:
        looks.append(1)
        release.wait(30)

    app.state.services.artifacts.check = hang

    async def asked() -> tuple[httpx.Response, list[httpx.Response]]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            held = [asyncio.create_task(http.get("/readyz", timeout=60)) for _ in range(50)]
            await asyncio.sleep(0.5)
            try:
                answer = await asyncio.wait_for(http.get("/healthz"), 5)
            finally:
                release.set()
                told = await asyncio.gather(*held)
            return answer, told

    answer, told = asyncio.run(asked())
    assert answer.json() == {"status": "ok"}
    assert len(looks) == 1
    assert {each.json()["parts"]["storage"] for each in told} == {True}
