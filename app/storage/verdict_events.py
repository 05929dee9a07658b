"""The event of a verdict, issued in the transaction that finishes it."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.domain.verdict import EVENT, Verdict


def issue(connection: Connection, verdict: Verdict, now: datetime) -> None:
    """Hand `verdict.issued` to the outgoing webhooks. The one seam to them."""


def event_data(verdict: Verdict) -> dict[str, Any]:
    """What the event says: enough to act on, and where the evidence is."""
    plan = verdict.plan
    return {
        "id": verdict.id,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "repo": verdict.push.repo,
        "ref": verdict.push.ref,
        "sha": verdict.push.sha,
        "policy": plan.policy if plan else None,
        "job": verdict.job,
        "numbers": dict(verdict.numbers),
        "actions": [
            {"kind": a.kind, "state": a.state, "number": a.number, "url": a.url}
            for a in verdict.actions
        ],
        "links": {"self": f"/v1/verdicts/{verdict.id}"},
    }


__all__ = ["EVENT", "event_data", "issue"]
