"""A verdict on one push to a hub's repository, and the way it comes to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, get_args

from app.domain.access import DEFAULT_TENANT
from app.domain.job import Fault
from app.domain.policy import BRANCHES, HUB_ACTIONS, ActionKind, Plan, VerdictName
from app.domain.webhook import EventType

VerdictState = Literal["received", "importing", "submitting", "waiting", "judged", "acting", "done"]
"""What it is at: each state is one step that may be done twice. `waiting` is for its job."""
ActionState = Literal["pending", "begun", "done", "would", "skipped", "failed"]
"""`begun`: a write to the hub was under way; before another, the hub is asked. `would`: what a dry
run would have done. `skipped`: there was no more reason to."""

STATES: tuple[VerdictState, ...] = get_args(VerdictState)
OPEN_ACTIONS: frozenset[ActionState] = frozenset({"pending", "begun"})
EVENT: EventType = "verdict.issued"


@dataclass(frozen=True)
class Push:
    """A branch of a repository that has moved to a commit, as a hub said."""

    webhook: str  # the hub's id of the webhook
    hub_repo: str  # the hub's id of the repository, which stays when it is renamed
    repo: str  # "org/name"
    ref: str  # "refs/heads/main"
    sha: str  # 40 hex digits

    @property
    def branch(self) -> str:
        return self.ref.removeprefix(BRANCHES)


@dataclass(frozen=True)
class Action:
    """What follows from a verdict, and what became of it."""

    kind: ActionKind
    state: ActionState = "pending"
    number: int | None = None  # of the discussion or pull request
    url: str | None = None
    note: str = ""

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_ACTIONS

    @property
    def writes_to_hub(self) -> bool:
        return self.kind in HUB_ACTIONS


@dataclass(frozen=True)
class Verdict:
    id: str
    push: Push
    received_at: datetime  # all times are UTC
    state: VerdictState
    since: datetime  # in this state
    tenant: str = DEFAULT_TENANT
    verdict: VerdictName | None = None  # None until it is judged
    why: str = ""  # a sentence
    plan: Plan | None = None
    adapter: str | None = None  # StoredAdapter.id
    base_name: str | None = None  # what adapter_config.json says, as a stranger wrote it
    unread: tuple[str, ...] = ()  # the first files of the commit that nobody looks at, shown
    job: str | None = None
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)
    revisions: Mapping[str, str] = field(default_factory=dict)  # commit SHAs, by model as named
    fault: Fault | None = None
    actions: tuple[Action, ...] = ()
    thread: int | None = None  # the discussion or pull request that it has opened
    patched: str | None = None  # content id of the patch that it has put into a pull request
    finished_at: datetime | None = None
    fence: int = 0  # grows with each claim
    attempts: int = 0  # of this state's step
    tried_since: datetime | None = None  # the first of these attempts; None before it
    tries: int = 1  # grows with each retry that somebody asked for
    trouble: str = ""  # why the last attempt came to nothing

    @property
    def marker(self) -> str:
        """What its discussions and pull requests hold, to be found again by."""
        return f"adapter-safety verdict {self.id}/{self.tries}"

    @property
    def may_retry(self) -> bool:
        return self.state == "done" and self.verdict == "inconclusive"

    @property
    def may_reopen(self) -> bool:
        """Whether there was no reason for something that there may be by now."""
        return self.state == "done" and any(each.state == "skipped" for each in self.actions)

    @property
    def is_issued(self) -> bool:
        """Whether it is done, and others are to hear of it."""
        told = any(each.kind == "webhook" and each.state == "done" for each in self.actions)
        return self.state == "done" and told

    @property
    def is_dry_run(self) -> bool:
        return self.plan is not None and self.plan.dry_run

    def judged(self, verdict: VerdictName, why: str, fault: Fault | None = None) -> "Verdict":
        """With its actions pending."""
        kinds = self.plan.actions_for(verdict) if self.plan else ()
        actions = tuple(Action(kind) for kind in kinds)
        return replace(self, state="judged", verdict=verdict, why=why, fault=fault, actions=actions)

    def acted(self, index: int, action: Action) -> "Verdict":
        actions = (*self.actions[:index], action, *self.actions[index + 1 :])
        return replace(self, actions=actions)

    def reopened(self) -> "Verdict":
        """As it was judged, with what it has skipped to be done. It is issued once more then."""
        pending = (
            Action(each.kind) if each.state == "skipped" or each.kind == "webhook" else each
            for each in self.actions
        )
        return replace(self, state="acting", actions=tuple(pending), attempts=0, trouble="")

    def anew(self) -> "Verdict":
        """As it was received, for another try; what it has opened stays known."""
        return Verdict(
            id=self.id,
            push=self.push,
            received_at=self.received_at,
            state="received",
            since=self.since,
            tenant=self.tenant,
            thread=self.thread,
            patched=self.patched,
            fence=self.fence,
            tries=self.tries + 1,
        )
