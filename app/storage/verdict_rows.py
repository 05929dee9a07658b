"""Verdicts to rows and back, field by field."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from app.domain.job import Fault
from app.domain.policy import Plan, Thresholds
from app.domain.verdict import Action, Push, Verdict
from app.storage.measure_rows import to_measure_recipe
from app.storage.rows import Json, fault_json, method_json, to_method

MAX_TEXT_CHARS = 2000  # of a sentence, because a stranger's names may be in it


def push_values(push: Push) -> Json:
    """The columns that say what a verdict is on."""
    return asdict(push)


def changed_values(verdict: Verdict) -> Json:
    """The columns that a step may change; lease, due time and state's begin are the store's."""
    return {
        "state": verdict.state,
        "attempts": verdict.attempts,
        "tries": verdict.tries,
        "trouble": plain_text(verdict.trouble),
        "verdict": verdict.verdict,
        "why": plain_text(verdict.why),
        "adapter": verdict.adapter,
        "job": verdict.job,
        "thread": verdict.thread,
        "patched": verdict.patched,
        "plan": None if verdict.plan is None else plan_json(verdict.plan),
        "evidence": {
            "base_name": verdict.base_name,
            "unread": list(verdict.unread),
            "numbers": dict(verdict.numbers),
            "revisions": dict(verdict.revisions),
            "fault": fault_json(verdict.fault),
        },
        "actions": [asdict(action) for action in verdict.actions],
    }


def to_verdict(row: Row[Any]) -> Verdict:
    """The verdict in a row of `verdicts`."""
    evidence = row.evidence
    return Verdict(
        id=row.id,
        tenant=row.tenant,
        push=Push(row.webhook, row.hub_repo, row.repo, row.ref, row.sha),
        received_at=row.received_at,
        finished_at=row.finished_at,
        state=row.state,
        since=row.since,
        fence=row.fence,
        attempts=row.attempts,
        tried_since=row.tried_since,
        tries=row.tries,
        trouble=row.trouble,
        verdict=row.verdict,
        why=row.why,
        adapter=row.adapter,
        job=row.job,
        thread=row.thread,
        patched=row.patched,
        plan=None if row.plan is None else _to_plan(row.plan),
        base_name=evidence["base_name"],
        unread=tuple(evidence["unread"]),
        numbers=evidence["numbers"],
        revisions=evidence["revisions"],
        fault=None if evidence["fault"] is None else Fault(**evidence["fault"]),
        actions=tuple(Action(**action) for action in row.actions),
    )


def plan_json(plan: Plan) -> Json:
    """A plan as JSON; `_to_plan` is its inverse."""
    return {
        **{name: getattr(plan, name) for name in PLAIN},
        "method": method_json(plan.method),
        "gate": None if plan.gate is None else asdict(plan.gate),
        "thresholds": asdict(plan.thresholds),
        "actions": {verdict: list(kinds) for verdict, kinds in plan.actions.items()},
    }


PLAIN = ("policy", "rule", "pair", "base_model", "chat_model", "dry_run")


def _to_plan(value: Mapping[str, Any]) -> Plan:
    gate = value["gate"]
    return Plan(
        **{name: value[name] for name in PLAIN},
        method=to_method(value["method"]),
        gate=None if gate is None else to_measure_recipe("patch", gate),  # type: ignore[arg-type] # because a patch's recipe is a gate
        thresholds=Thresholds(**value["thresholds"]),
        actions={verdict: tuple(kinds) for verdict, kinds in value["actions"].items()},
    )


def plain_text(text: str) -> str:
    """What PostgreSQL takes as text: a stranger's names may hold NUL and lone surrogates."""
    clean = text.encode("utf-8", "replace").decode().replace("\x00", "?")
    return clean[:MAX_TEXT_CHARS]
