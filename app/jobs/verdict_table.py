"""Verdicts as CSV (RFC 4180), one row each, for whoever audits a hub."""

import csv
import io
from collections.abc import Iterable

from app.domain.verdict import Verdict
from app.jobs.measured_tables import no_formula

COLUMNS = (
    "id", "received_at", "finished_at", "state", "verdict", "why", "repo", "ref", "sha", "adapter",
    "base_model_name_or_path", "base_model", "base_revision", "chat_model", "chat_revision", "job",
    "policy", "rule", "pair", "dry_run", "modules", "projected", "kept", "skipped", "unscreened",
    "unread", "projected_fraction", "median_retained_energy", "min_kept_pdst", "problem", "actions",
    "discussion",
)  # fmt: skip


def header() -> str:
    return _written([COLUMNS])


def lines(verdicts: Iterable[Verdict]) -> str:
    """Text that came from strangers begins no formula."""
    return _written(map(_row, verdicts))


def _written(rows: Iterable[Iterable[object]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8", "replace").decode()


def _row(verdict: Verdict) -> list[object]:
    values = {**_of_push(verdict), **_of_plan(verdict), **verdict.numbers}
    found = (values.get(column) for column in COLUMNS)
    return [no_formula(value) if isinstance(value, str) else value for value in found]


def _of_push(verdict: Verdict) -> dict[str, object]:
    ended = verdict.finished_at
    return {
        "id": verdict.id,
        "received_at": verdict.received_at.isoformat(),
        "finished_at": ended and ended.isoformat(),
        "state": verdict.state,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "repo": verdict.push.repo,
        "ref": verdict.push.ref,
        "sha": verdict.push.sha,
        "adapter": verdict.adapter,
        "base_model_name_or_path": verdict.base_name,
        "job": verdict.job,
        "problem": verdict.fault and verdict.fault.code,
        "actions": "; ".join(f"{each.kind} {each.state}" for each in verdict.actions),
        "discussion": next((each.url for each in verdict.actions if each.url), None),
    }


def _of_plan(verdict: Verdict) -> dict[str, object]:
    plan = verdict.plan
    if plan is None:
        return {}
    base, chat = plan.base_model, plan.chat_model
    return {
        "base_model": base,
        "base_revision": verdict.revisions.get(base or ""),
        "chat_model": chat,
        "chat_revision": verdict.revisions.get(chat or ""),
        "policy": plan.policy,
        "rule": plan.rule,
        "pair": plan.pair,
        "dry_run": plan.dry_run,
    }
