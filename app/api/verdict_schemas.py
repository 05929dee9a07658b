"""Verdicts and the policy in force, over the wire."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from app.api.job_schemas import job_path
from app.api.policy_file import PolicyState
from app.api.recipes import recipe_out
from app.domain.policy import ActionKind, Plan, Policy, VerdictName
from app.domain.verdict import Action, ActionState, Verdict, VerdictState
from app.jobs.decide import method_reference


def verdict_path(verdict_id: str) -> str:
    return f"/v1/verdicts/{verdict_id}"


class ModelOut(BaseModel):
    id: str
    revision: str | None = Field(description="commit that the job read; null for a local folder")


class ActionOut(BaseModel):
    kind: ActionKind
    state: ActionState
    number: int | None = Field(description="of the discussion or pull request")
    url: str | None
    note: str

    @classmethod
    def of(cls, action: Action) -> "ActionOut":
        return cls(**asdict(action))


class VerdictOut(BaseModel):
    """A verdict in a listing."""

    id: str
    state: VerdictState
    verdict: VerdictName | None = Field(description="null until it is judged")
    why: str
    repo: str
    ref: str
    sha: str
    received_at: datetime
    finished_at: datetime | None
    dry_run: bool
    trouble: str = Field(description="why the last attempt came to nothing")
    actions: list[ActionOut]
    links: dict[str, str]

    @classmethod
    def of(cls, verdict: Verdict) -> "VerdictOut":
        return cls(**_short(verdict))


class EvidenceOut(VerdictOut):
    """One verdict, with all that decided."""

    webhook: str = Field(description="the hub's id of the webhook")
    adapter: str | None
    base_model_name_or_path: str | None = Field(description="what adapter_config.json says")
    base_model: ModelOut | None
    chat_model: ModelOut | None
    job: str | None
    numbers: dict[str, float | int | None] = Field(description="what the thresholds looked at")
    policy: dict[str, Any] | None = Field(description="its version, and the parts that decided")
    problem: dict[str, Any] | None = Field(description="the error that ended it")
    attempts: int = Field(description="of the step that it is at")
    tries: int = Field(description="one more each time that it was retried")

    @classmethod
    def of(cls, verdict: Verdict) -> "EvidenceOut":
        plan = verdict.plan
        return cls(
            **_short(verdict),
            webhook=verdict.push.webhook,
            adapter=verdict.adapter,
            base_model_name_or_path=verdict.base_name,
            base_model=_model(plan.base_model if plan else None, verdict),
            chat_model=_model(plan.chat_model if plan else None, verdict),
            job=verdict.job,
            numbers=dict(verdict.numbers),
            policy=None if plan is None else _plan(plan),
            problem=_problem(verdict),
            attempts=verdict.attempts,
            tries=verdict.tries,
        )


class VerdictPage(BaseModel):
    items: list[VerdictOut]
    next_cursor: str | None


class PolicyOut(BaseModel):
    """What is in force, and what is wrong with the file as it is now."""

    version: str | None = Field(description="SHA-256 of the file in force; null: none is")
    loaded_at: datetime | None
    problem: dict[str, Any] | None = Field(description="why the file as it is now is not in force")
    tenant: str | None
    dry_run: bool | None
    policy: dict[str, Any] | None

    @classmethod
    def of(cls, state: PolicyState) -> "PolicyOut":
        policy = state.policy
        return cls(
            version=policy and policy.version,
            loaded_at=state.loaded_at,
            problem=None if state.problem is None else dict(state.problem.facts),
            tenant=policy and policy.tenant,
            dry_run=policy.dry_run if policy else None,
            policy=None if policy is None else _policy(policy),
        )


def _short(verdict: Verdict) -> dict[str, Any]:
    links = {"self": verdict_path(verdict.id)}
    if verdict.job:
        links |= {"job": job_path(verdict.job), "report": f"{job_path(verdict.job)}/report"}
    return {
        "id": verdict.id,
        "state": verdict.state,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "repo": verdict.push.repo,
        "ref": verdict.push.ref,
        "sha": verdict.push.sha,
        "received_at": verdict.received_at,
        "finished_at": verdict.finished_at,
        "dry_run": verdict.is_dry_run,
        "trouble": verdict.trouble,
        "actions": [ActionOut.of(action) for action in verdict.actions],
        "links": links,
    }


def _model(model_id: str | None, verdict: Verdict) -> ModelOut | None:
    if model_id is None:
        return None
    return ModelOut(id=model_id, revision=verdict.revisions.get(model_id))


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "version": plan.policy,
        "rule": plan.rule,
        "pair": plan.pair,
        "dry_run": plan.dry_run,
        **_work(plan),
    }


def _policy(policy: Policy) -> dict[str, Any]:
    return {
        "repositories": asdict(policy.repositories),
        "pairs": [asdict(pair) for pair in policy.pairs],
        **_work(policy),
    }


def _work(of: Plan | Policy) -> dict[str, Any]:
    return {
        "method": asdict(method_reference(of.method)),
        **(recipe_out(of.gate) or {}),
        "thresholds": asdict(of.thresholds),
        "actions": {verdict: list(kinds) for verdict, kinds in of.actions.items()},
    }


def _problem(verdict: Verdict) -> dict[str, Any] | None:
    fault = verdict.fault
    if fault is None:
        return None
    kind = f"urn:adapter-safety:problem:{fault.code}"
    return {**fault.facts, "type": kind, "title": fault.title, "detail": fault.detail}
