"""When a delivery is tried again."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.retry import MAX_RETRY_AFTER_S, SCHEDULE_S, next_step
from app.domain.webhook import Outcome

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE, HOUR = 60, 3600


def test_the_schedule_is_standard_webhooks_own() -> None:
    pauses = [0, 5, 5 * MINUTE, 30 * MINUTE, *(h * HOUR for h in (2, 5, 10, 14, 20, 24))]
    assert list(SCHEDULE_S) == pauses


def test_each_failure_waits_as_long_as_the_schedule_says_and_the_last_ends_it() -> None:
    refused = Outcome(status=500)
    steps = [next_step(refused, tried, NOW, 0.0) for tried in range(len(SCHEDULE_S))]
    assert [step.wait.total_seconds() for step in steps[:-1]] == list(SCHEDULE_S[1:])
    assert [step.state for step in steps] == ["pending"] * 9 + ["failed"]


def test_jitter_makes_a_pause_a_tenth_longer_at_most() -> None:
    for jitter, expected in ((0.0, 300), (0.5, 315), (1.0, 330)):
        assert next_step(Outcome(error="x"), 1, NOW, jitter).wait.total_seconds() == expected


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_only_2xx_is_a_success(status: int) -> None:
    assert next_step(Outcome(status=status), 0, NOW, 0.0).state == "delivered"


@pytest.mark.parametrize("status", [101, 199, 300, 301, 302, 304, 307, 308, 400, 404, 429, 503])
def test_anything_else_is_none_redirects_too(status: int) -> None:
    step = next_step(Outcome(status=status), 0, NOW, 0.0)
    assert (step.state, step.wait.total_seconds(), step.disables) == ("pending", 5, None)


def test_gone_ends_the_delivery_and_disables_the_endpoint() -> None:
    step = next_step(Outcome(status=410), 0, NOW, 0.0)
    assert step.state == "failed"
    assert "410" in str(step.disables)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("0", 5),
        ("-1", 5),
        ("1", 5),
        ("Sun, 01 Mar 2026 12:10:00 GMT", 600),
        ("Sun, 01 Mar 2026 12:10:00", 600),
        ("Sun, 01 Mar 2026 13:00:00 +0100", 5),
        ("Sat, 28 Feb 2026 12:00:00 GMT", 5),
        ("Sun, 01 Mar 2099 12:00:00 GMT", MAX_RETRY_AFTER_S),
        ("9" * 400, MAX_RETRY_AFTER_S),
        ("1e9", 5),
        ("\u0663", 5),
        ("soon", 5),
        ("", 5),
        (None, 5),
    ],
)
def test_retry_after_is_honoured_in_seconds_or_as_a_date_within_a_day(
    header: str | None, expected: float
) -> None:
    step = next_step(Outcome(status=503, retry_after=header), 0, NOW, 0.0)
    assert step.wait == timedelta(seconds=expected)


def test_a_retry_after_shorter_than_the_schedule_does_not_hurry_it() -> None:
    step = next_step(Outcome(status=429, retry_after="10"), 3, NOW, 0.0)
    assert step.wait.total_seconds() == SCHEDULE_S[4]
