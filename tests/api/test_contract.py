"""Requests made from the API's own description, sound ones and broken ones: no answer is a server's
error, and every answer is as described."""

from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service import Service

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


def test_every_answer_is_as_described(description: schemathesis.BaseSchema) -> None:
    """Sound requests, and such as break the description in one place."""
    for operation in operations(description):
        for mode in schemathesis.GenerationMode:
            answered(operation, mode)


def answered(operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode) -> None:
    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def each(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=30)

    with suppress(Unsatisfiable):  # an operation that takes nothing has nothing to break
        each()


def test_every_route_describes_its_problems(http: httpx.Client) -> None:
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            for status in ("4XX", "5XX"):
                content = operation["responses"][status]["content"]
                assert "application/problem+json" in content, (method, path)
            assert "422" not in operation["responses"], (method, path)
