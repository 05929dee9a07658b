"""What every answer has, also where the service has a bug."""

import logging

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.api.outer import Outer


def broken(_: Request) -> Response:
    raise RuntimeError("a secret path /srv/x")


async def breaks_off(_: Request) -> Response:
    async def pieces():
        yield b"half"
        raise RuntimeError("in the middle")

    return StreamingResponse(pieces())


@pytest.fixture
def client() -> TestClient:
    app = Starlette(routes=[Route("/v1/broken", broken), Route("/v1/half", breaks_off)])
    app.add_middleware(Outer)
    return TestClient(app, raise_server_exceptions=False)


def test_a_bug_is_a_problem_that_says_nothing_of_the_server(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = client.get("/v1/broken", headers={"X-Request-ID": "seen-by-me"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:adapter-safety:problem:internal-error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "seen-by-me"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "seen-by-me" in caplog.text


def test_an_answer_that_breaks_off_does_not_look_whole(client: TestClient) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        TestClient(client.app).get("/v1/half")
