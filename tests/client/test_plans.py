"""What the clients decide: when to ask again, what an answer means. No connection is made."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from app.client import (
    FINAL,
    Event,
    Patience,
    ProblemError,
    ServerFault,
    Throttled,
    Unauthenticated,
    Unavailable,
    parse_events,
    plans,
)
from app.client.downloads import digest_of
from app.client.plans import Pause, Send
from app.client.problems import problem_of, retry_after_s

GET = Send("GET", "/v1/jobs")


def answer(status: int, body: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=body or {}, headers=named)


def carried(plan: Any, *answers: httpx.Response) -> tuple[Any, list[Any]]:
    """The result, and what was asked for, in order."""
    steps, given = [next(plan)], list(answers)
    try:
        while True:
            steps.append(plan.send(given.pop(0) if isinstance(steps[-1], Send) else None))
    except StopIteration as ended:
        return ended.value, steps


@pytest.mark.parametrize("status", [429, 503])
def test_what_asks_to_come_back_is_asked_again_after_the_time_it_names(status: int) -> None:
    busy = answer(status, retry_after="7")
    found, steps = carried(plans.ask(GET, Patience()), busy, answer(200, {"a": 1}))
    assert (found, steps) == ({"a": 1}, [GET, Pause(7.0), GET])


def test_without_a_time_the_pauses_double() -> None:
    _, steps = carried(plans.ask(GET, Patience()), *[answer(503)] * 4, answer(200))
    assert [step.seconds for step in steps if isinstance(step, Pause)] == [0.5, 1, 2, 4]


@pytest.mark.parametrize(
    ("patience", "after", "pauses"),
    [(Patience(2), "1", 2), (Patience(9, longest_s=5), "2", 2), (Patience(), "3600", 0)],
)
def test_there_is_an_end_to_it(patience: Patience, after: str, pauses: int) -> None:
    for _ in range(2):  # another call starts with all of it
        plan = plans.ask(GET, patience)
        next(plan)
        for _ in range(pauses):
            assert isinstance(plan.send(answer(429, retry_after=after)), Pause)
            assert plan.send(None) == GET
        with pytest.raises(Throttled) as told:
            plan.send(answer(429, retry_after=after))
        assert told.value.retry_after_s == float(after)


def test_what_may_have_been_done_is_not_asked_twice() -> None:
    once = Send("POST", "/v1/jobs", repeatable=False)
    with pytest.raises(Unavailable):
        carried(plans.ask(once, Patience()), answer(503, retry_after="1"))
    found, _ = carried(plans.ask(once, Patience()), answer(429, retry_after="1"), answer(202))
    assert found == {}


def test_a_job_is_submitted_with_a_key_of_its_own() -> None:
    keys = set()
    for _ in range(2):
        _, (sent, *_) = carried(plans.submit({}, None, Patience()), answer(202))
        keys.add(sent.headers["Idempotency-Key"])
    _, (sent, *_) = carried(plans.submit({}, "mine", Patience()), answer(202))
    assert len(keys) == 2
    assert sent.headers["Idempotency-Key"] == "mine"


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 502])
def test_other_problems_are_told_at_once(status: int) -> None:
    with pytest.raises(ProblemError) as told:
        carried(plans.ask(GET, Patience()), answer(status, {"detail": "so it is"}))
    assert (str(told.value), told.value.status) == ("so it is", status)


def test_an_answer_that_no_service_of_ours_wrote_is_a_problem_too() -> None:
    gateway = problem_of(httpx.Response(502, text="<html>Bad gateway</html>"))
    assert isinstance(gateway, ServerFault)
    assert (gateway.status, str(gateway), gateway.type) == (502, "HTTP 502", "about:blank")
    assert isinstance(problem_of(answer(401)), Unauthenticated)
    assert str(problem_of(httpx.Response(500, json=["no object"]))) == "HTTP 500"


def test_retry_after_is_read_in_both_forms() -> None:
    at = datetime.now(UTC) + timedelta(seconds=30)
    assert 25 < (retry_after_s({"retry-after": format_datetime(at, usegmt=True)}) or 0) <= 30
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after_s({"retry-after": " 12 "}) == 12
    for broken in ("", "soon", "-1", "1.5", "٣"):
        assert retry_after_s({"retry-after": broken}) is None


def test_a_listing_goes_on_by_its_cursor_and_keeps_its_question() -> None:
    first = plans.listing("/v1/jobs", {"status": "failed", "kind": None, "limit": 5})
    assert first.params == {"status": "failed", "limit": 5}
    second = plans.next_page(first, {"items": [], "next_cursor": "c"})
    assert second
    assert second.params == {"status": "failed", "limit": 5, "cursor": "c"}
    assert plans.next_page(second, {"items": [], "next_cursor": None}) is None


def test_an_id_is_one_part_of_a_path() -> None:
    assert plans.job_path("../adapters?x=1#y") == "/v1/jobs/..%2Fadapters%3Fx%3D1%23y"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:", "00" * 32),
        ("sha-512=:AA==:, sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:", "00" * 32),
        ("sha-512=:AA==:", None),
        ("sha-256=:short=:", None),
        ("", None),
    ],
)
def test_a_digest_is_read_or_not_there(said: str, found: str | None) -> None:
    assert digest_of(said) == found


def test_events_are_read_as_the_standard_has_them() -> None:
    text = (
        ": a comment\nid: 1\nevent: running\ndata: {}\n\n"
        "retry: 5\n\ndata: {\ndata: }\n\n"
        'event:module\ndata:{"done": 1}\nid:2\n\nid: 3\nevent: cut\ndata: {'
    )
    assert list(parse_events(iter(text.split("\n")))) == [
        Event("1", "running", {}),
        Event("1", "", {}),
        Event("2", "module", {"done": 1}),
    ]
    assert {"succeeded", "failed", "cancelled"} == FINAL
