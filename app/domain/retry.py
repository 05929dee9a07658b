"""When a delivery is tried again, and when no more."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from app.domain.webhook import DeliveryState, Outcome

SCHEDULE_S = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before each attempt, the first at once: Standard Webhooks' own example."""
JITTER = 0.1  # the share by which a pause may be longer, so that retries of one outage spread
MAX_RETRY_AFTER_S = 86_400.0  # because a receiver must not put its deliveries off for ever
GONE = 410
GONE_REASON = "the receiver answered 410 Gone"


@dataclass(frozen=True)
class Step:
    """What an attempt makes of its delivery."""

    state: DeliveryState
    wait: timedelta = timedelta()  # of a pending one, from now
    disables: str | None = None  # the reason, where the endpoint is to be called no more


def next_step(outcome: Outcome, tried: int, now: datetime, jitter: float) -> Step:
    """After the attempt that came when `tried` others had been made; `jitter` is in [0, 1)."""
    if outcome.status is not None and 200 <= outcome.status < 300:
        return Step("delivered")
    if outcome.status == GONE:
        return Step("failed", disables=GONE_REASON)
    if tried + 1 >= len(SCHEDULE_S):
        return Step("failed")
    pause_s = SCHEDULE_S[tried + 1] * (1 + JITTER * jitter)
    return Step("pending", timedelta(seconds=max(pause_s, retry_after_s(outcome, now))))


def retry_after_s(outcome: Outcome, now: datetime) -> float:
    """The seconds that the receiver asks for, bounded; 0 for what cannot be read."""
    text = (outcome.retry_after or "").strip()
    asked_s = float(text) if text.isascii() and text.isdigit() else _until(text, now)
    return min(max(asked_s, 0.0), MAX_RETRY_AFTER_S)


def _until(text: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - now).total_seconds()
    return seconds if math.isfinite(seconds) else 0.0
