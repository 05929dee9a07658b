"""Requests made from the API's own description, sound ones and broken ones: no answer is a server's
error, and every answer is as described."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import get_args

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.domain.salora import PartKind
from tests.factory import World
from tests.samples import a_file, a_part
from tests.service import Service
from tests.uploads import parts

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def description(service: Service) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def operations(description: schemathesis.BaseSchema) -> Iterator[schemathesis.APIOperation]:
    for found in description.get_all_operations():
        yield found.ok()


@pytest.fixture(scope="module")
def part(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a safety module and of a kit."""
    path, file = a_file(tmp_path_factory.mktemp("part"), b"part")
    sample = a_part(file=file)
    with service.stores() as (records, artifacts):
        artifacts.put(path, file)
        for kind in get_args(PartKind):
            records.add_part(replace(sample, kind=kind))
    return sample.id


@pytest.fixture(scope="module")
def known(http: httpx.Client, llama_world: World, part: str) -> dict[str, str]:
    """Ids that are there, for the paths that name one."""
    adapter = http.post("/v1/adapters", files=parts(llama_world.adapter)).json()["id"]
    hook = {"url": "https://hooks.invalid/", "events": ["job.succeeded"]}
    webhook = http.post("/v1/webhooks", json=hook).json()
    body = {"adapter": adapter, "base_model": "base", "chat_model": "chat"}
    job = http.post("/v1/jobs", json=body, headers={"Prefer": "wait=60"}).json()
    assert job["status"] == "succeeded"
    sent = {"Content-Type": "application/jsonl"}
    rows = b'{"prompt": "p", "response": "r"}'
    dataset = http.post("/v1/datasets", content=rows, headers=sent).json()["id"]
    delivery = http.get(webhook["links"]["deliveries"]).json()["items"][0]
    return {
        "adapter_id": adapter,
        "job_id": job["id"],
        "dataset_id": dataset,
        "part_id": part,
        "webhook_id": webhook["id"],
        "delivery_id": delivery["id"],
    }


def test_every_answer_is_as_described(
    description: schemathesis.BaseSchema, known: dict[str, str]
) -> None:
    """Sound requests, and such as break the description in one place."""
    seen: set[int] = set()
    for operation in operations(description):
        for mode in schemathesis.GenerationMode:
            seen |= statuses(operation, mode, known)
    assert {200, 400, 404, 409, 422} <= seen
    assert 401 not in seen


def statuses(
    operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode, known: dict[str, str]
) -> set[int]:
    seen: set[int] = set()

    @given(operation.as_strategy(generation_mode=mode), st.booleans())
    @settings(
        max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def each(case: schemathesis.Case, is_known: bool) -> None:
        for name in [name for name in case.headers if name.lower() == "authorization"]:
            del case.headers[name]  # a made-up key is refused before anything else is looked at
        if is_known:
            case.path_parameters |= {
                name: known[name] for name in case.path_parameters.keys() & known.keys()
            }
        seen.add(case.call_and_validate(checks=CHECKS, timeout=30).status_code)

    with suppress(Unsatisfiable):  # an operation that takes nothing has nothing to break
        each()
    return seen


def test_every_route_describes_its_problems(http: httpx.Client) -> None:
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            for status in ("4XX", "5XX"):
                content = operation["responses"][status]["content"]
                assert "application/problem+json" in content, (method, path)
            assert "422" not in operation["responses"], (method, path)
