"""What moderation needs from outside, as Protocols; `app.storage` has the real ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from app.domain.policy import VerdictName
from app.domain.verdict import Push, Verdict, VerdictState
from app.jobs.ports import Page


@dataclass(frozen=True)
class VerdictFilter:
    """Which verdicts a listing shows; None is all."""

    repo: str | None = None
    verdict: VerdictName | None = None
    state: VerdictState | None = None
    since: datetime | None = None  # received then or later
    until: datetime | None = None  # received before


class Verdicts(Protocol):
    """The records of verdicts. Every method is one transaction. Reading is of one tenant; what
    moderation does is for all."""

    def of(self, tenant: str) -> "Verdicts":
        """The same database, another tenant's."""

    def receive(self, push: Push) -> tuple[Verdict, bool]:
        """A new verdict of this tenant's on a push, or the one there is, whichever webhook told of
        it first: False then. What that one has skipped is to be done after all: the branch may be
        back at its commit."""

    def claim(self, *, lease_s: float) -> Verdict | None:
        """The one that is due the longest and that nobody is at, its fence and attempts one
        higher; None where there is none. One that waits is due when its job has ended."""

    def renew(self, verdict: Verdict, *, lease_s: float) -> None:
        """Raises VerdictTaken."""

    def keep(self, verdict: Verdict) -> Verdict:
        """Write a claimed one's changes and go on with it. Raises VerdictTaken."""

    def give_back(self, verdict: Verdict, *, due_in_s: float = 0) -> Verdict:
        """As `keep`, and let it go: its next step is due then. In another state than before, its
        attempts are counted anew. One that is done is finished, and its event is issued in the same
        transaction, where that is among its actions. Raises VerdictTaken."""

    def postpone(self, verdict: Verdict, trouble: str, *, due_in_s: float) -> None:
        """Let a claimed one go as it was kept last; its step is due again then. Raises
        VerdictTaken."""

    def retry(self, verdict_id: str) -> Verdict:
        """Begin one that ended inconclusive again. Raises VerdictNotFound, VerdictNotRetryable."""

    def verdict(self, verdict_id: str) -> Verdict:
        """Raises VerdictNotFound."""

    def verdicts(self, wanted: VerdictFilter, *, limit: int, cursor: str | None) -> Page[Verdict]:
        """Newest first. Raises InvalidField(field="cursor")."""

    def thread_before(self, verdict: Verdict) -> int | None:
        """The discussion or pull request that was opened last in its repository by a verdict."""

    def proposed(self, verdict: Verdict, content: str) -> Verdict | None:
        """The verdict whose pull request in this repository has this content."""


@dataclass(frozen=True)
class Posted:
    """A discussion or a pull request."""

    number: int
    url: str


class HubWriter(Protocol):
    """Answers in a hub's model repositories.

    Every method raises Unavailable(part="hub"), RepositoryNotFound, RepositoryGated and
    HubWriteRefused.
    """

    def find(self, repo: str, title: str, marker: str) -> Posted | None:
        """The discussion or pull request of this title whose texts hold the marker."""

    def has_comment(self, repo: str, number: int, marker: str) -> bool:
        """Whether a text of this discussion holds the marker."""

    def discussion(self, repo: str, title: str, text: str) -> Posted:
        """Open one."""

    def comment(self, repo: str, number: int, text: str) -> Posted:
        """Say something in one."""

    def pull_request(
        self, repo: str, parent: str, files: Mapping[str, Path], title: str, text: str
    ) -> Posted | None:
        """Propose files, by their names in the repository, on top of the commit `parent`; None
        where they are there already. Raises PushedMeanwhile."""
