"""Pre-warming over real HTTP, done by a real worker."""

import csv
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from app.client import Client
from tests.factory import World, make_world
from tests.service import Service, running
from tests.uploads import parts

WAIT = {"Prefer": "wait=60"}
MODELS = {"base_model": "base", "chat_model": "chat"}
LINEAR = 2 * 7  # modules of a llama of two layers


@pytest.fixture(scope="module")
def warm_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("warm"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, warm_world: World) -> Iterator[Service]:
    """One of this module's own, because what is in the cache is looked at."""
    with running(tmp_path_factory.mktemp("service"), warm_world.base.parent) as started:
        yield started


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def adapter(http: httpx.Client, warm_world: World) -> str:
    return http.post("/v1/adapters", files=parts(warm_world.adapter)).json()["id"]


@pytest.fixture(scope="module")
def done(http: httpx.Client) -> dict[str, Any]:
    """A job that has warmed every module of the pair."""
    answer = http.post("/v1/alignments", json=MODELS, headers=WAIT)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded", answer.text
    return answer.json()


def warm(http: httpx.Client, **asked: object) -> dict[str, Any]:
    job = http.post("/v1/alignments", json={**MODELS, **asked}, headers=WAIT).json()
    assert job["status"] == "succeeded", job
    return http.get(job["links"]["report"]).json()


def pairs(http: httpx.Client) -> list[dict[str, Any]]:
    return http.get("/v1/alignments").json()["items"]


def test_a_request_is_accepted_as_a_job(http: httpx.Client) -> None:
    answer = http.post("/v1/alignments", json={**MODELS, "modules": ["q_proj"]})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["adapter"], job["modules"]) == ("alignment", None, ["q_proj"])
    assert job["method"] == {"projector": "approximate", "energy": None, "rank": None}
    listed = http.get("/v1/jobs", params={"kind": "alignment"}).json()["items"]
    assert job["id"] in [each["id"] for each in listed]


def test_without_names_every_linear_module_is_warmed(
    http: httpx.Client, done: dict[str, Any]
) -> None:
    report = http.get(done["links"]["report"]).json()
    assert len(report["modules"]) == LINEAR
    assert not [m for m in report["modules"] if "embed" in m["module"] or "head" in m["module"]]
    assert report["size_bytes"] == sum(m["size_bytes"] for m in report["modules"]) > 0
    assert report["warnings"] == []
    assert done["progress"] == {"done": LINEAR, "total": LINEAR}


def test_the_report_follows_its_schema(http: httpx.Client, done: dict[str, Any]) -> None:
    schema = http.get("/v1/schemas/alignment").json()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(http.get(done["links"]["report"]).json())


def test_the_report_comes_in_every_form(http: httpx.Client, done: dict[str, Any]) -> None:
    path = done["links"]["report"]
    rows = list(csv.DictReader(io.StringIO(http.get(path, params={"format": "csv"}).text)))
    assert len(rows) == LINEAR
    assert rows[0]["shape"].count(" x ") == 1
    for form in ("markdown", "html"):
        text = http.get(path, params={"format": form}).text
        assert all(row["module"] in text for row in rows)


def test_events_tell_every_module(service: Service, done: dict[str, Any]) -> None:
    with Client(service.url) as client:
        events = list(client.events(done["id"]))
    assert [e.name for e in events] == ["queued", "running", *["module"] * LINEAR, "succeeded"]
    assert {e.data["source"] for e in events if e.name == "module"} <= {"computed", "cache"}


def test_a_later_patch_finds_every_alignment(
    http: httpx.Client, adapter: str, done: dict[str, Any]
) -> None:
    job = http.post("/v1/jobs", json={**MODELS, "adapter": adapter}, headers=WAIT).json()
    layers = http.get(job["links"]["report"]).json()["layers"]
    assert [layer["alignment"] for layer in layers] == ["cache"] * len(layers)


def test_what_is_warm_stays_warm(http: httpx.Client, done: dict[str, Any]) -> None:
    assert {module["source"] for module in warm(http)["modules"]} == {"cache"}


def test_an_adapters_modules_for_another_projector(http: httpx.Client, adapter: str) -> None:
    report = warm(http, adapter=adapter, projector="subspace", rank=2)
    modules = http.get(f"/v1/adapters/{adapter}").json()["modules"]
    assert [m["module"] for m in report["modules"]] == [m["module"] for m in modules]
    assert (report["projector"], report["energy"], report["rank"]) == ("subspace", None, 2)
    assert {m["form"] for m in report["modules"]} == {"directions"}


def test_the_listing_tells_what_is_kept_and_used(http: httpx.Client, done: dict[str, Any]) -> None:
    (before,) = pairs(http)
    again = warm(http)
    (after,) = pairs(http)
    assert after["hits"] == before["hits"] + LINEAR
    assert after["misses"] == before["misses"] >= LINEAR
    assert (after["modules"], after["cache"]) == (before["modules"], before["cache"])
    assert after["size_bytes"] >= again["size_bytes"]
    assert after["base_model"] == {
        "id": "base",
        "digest": again["base_model"]["digest"],
    }
    assert after["last_used"] > before["last_used"]


def test_the_listing_is_paged(http: httpx.Client, done: dict[str, Any]) -> None:
    page = http.get("/v1/alignments", params={"limit": 1}).json()
    assert (len(page["items"]), page["next_cursor"]) == (1, None)
    refused = http.get("/v1/alignments", params={"cursor": "x"})
    assert (refused.status_code, refused.json()["field"]) == (422, "cursor")


def test_a_repeated_request_under_one_key_is_one_job(http: httpx.Client) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    jobs = [http.post("/v1/alignments", json=MODELS, headers=key).json()["id"] for _ in range(2)]
    assert jobs[0] == jobs[1]
    other = http.post("/v1/alignments", json={**MODELS, "modules": ["q_proj"]}, headers=key)
    assert (other.status_code, other.json()["type"].split(":")[-1]) == (
        422,
        "idempotency-key-reused",
    )


def test_a_finished_alignment_cannot_be_cancelled(http: httpx.Client, done: dict[str, Any]) -> None:
    assert http.delete(done["links"]["self"]).status_code == 409


def test_an_alignment_has_no_adapter_to_download(http: httpx.Client, done: dict[str, Any]) -> None:
    answer = http.get(f"{done['links']['self']}/adapter")
    assert answer.status_code == 404
    assert "an alignment" in answer.json()["detail"]
    assert "adapter" not in done["links"]


def test_an_alignment_has_no_decisions_to_make_anew(
    http: httpx.Client, done: dict[str, Any]
) -> None:
    answer = http.get(done["links"]["report"], params={"threshold": 0.5})
    assert (answer.status_code, answer.json()["field"]) == (422, "threshold")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"modules": []}, "modules"),
        ({"modules": [""]}, "modules.0"),
        ({"modules": ["q_proj"], "adapter": "a" * 64}, "modules"),
        ({"projector": "best"}, "projector"),
        ({"projector": "exact", "rank": 3}, "rank"),
        ({"projector": "subspace", "energy": 2}, "energy"),
        ({"chat_model": "base"}, "chat_model"),
        ({"chat_model": "nobody"}, "chat_model"),
        ({"select": {"by": "all"}}, "select"),
    ],
)
def test_a_wrong_field_is_named(http: httpx.Client, asked: dict[str, object], field: str) -> None:
    answer = http.post("/v1/alignments", json={**MODELS, **asked})
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_a_module_that_no_model_has_is_named(http: httpx.Client) -> None:
    answer = http.post("/v1/alignments", json={**MODELS, "modules": ["q_proj", "no_proj"]})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":modules-not-in-model")
    assert answer.json()["modules"] == ["no_proj"]


def test_an_adapter_that_nobody_uploaded_is_told(http: httpx.Client) -> None:
    answer = http.post("/v1/alignments", json={**MODELS, "adapter": "a" * 64})
    assert (answer.status_code, answer.json()["adapter"]) == (404, "a" * 64)


def test_a_job_of_this_kind_is_not_taken_at_jobs(http: httpx.Client, adapter: str) -> None:
    answer = http.post("/v1/jobs", json={**MODELS, "kind": "alignment", "adapter": adapter})
    assert (answer.status_code, answer.json()["field"]) == (422, "kind")


def test_every_example_in_the_api_description_is_one_that_it_takes(http: httpx.Client) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    for example in schemas["AlignmentIn"]["examples"]:
        answer = http.post("/v1/alignments", json=example)
        taken = answer.status_code == 202  # of models org/name, which a worker looks for on the hub
        assert taken or answer.json()["type"].split(":")[-1] == "adapter-not-found"


def test_a_worker_without_a_cache_says_that_nothing_is_kept(
    tmp_path: Path, warm_world: World
) -> None:
    off = {"ADAPTER_SAFETY_ALIGNMENT_CACHE_BYTES": "0"}
    with (
        running(tmp_path, warm_world.base.parent, **off) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        report = warm(client, modules=["q_proj"])
        assert pairs(client) == []
    assert {module["source"] for module in report["modules"]} == {None}
    (warning,) = report["warnings"]
    assert "ALIGNMENT_CACHE_BYTES" in warning
