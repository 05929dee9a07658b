"""The event of a verdict, issued in the transaction that finishes it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.job_event import MAX_DETAIL_BYTES, cut
from app.domain.verdict import EVENT, Verdict
from app.storage.webhook_events import enqueue_event


def issue(connection: Connection, verdict: Verdict, now: datetime) -> None:
    """Tell the tenant's webhooks that asked for `verdict.issued`."""
    enqueue_event(connection, verdict.tenant, EVENT, event_data(verdict), now)


def event_data(verdict: Verdict) -> dict[str, Any]:
    """What the event says: enough to act on, and where the evidence is. Bounded, because a
    sentence may hold a stranger's names."""
    return {
        "id": verdict.id,
        "verdict": verdict.verdict,
        "why": cut(verdict.why, MAX_DETAIL_BYTES),
        "repo": verdict.push.repo,
        "ref": verdict.push.ref,
        "sha": verdict.push.sha,
        "policy": verdict.plan.policy if verdict.plan else None,
        "job": verdict.job,
        "numbers": dict(verdict.numbers),
        "actions": [
            {"kind": each.kind, "state": each.state, "number": each.number, "url": each.url}
            for each in verdict.actions
        ],
        "links": {"self": f"/v1/verdicts/{verdict.id}"},
    }
