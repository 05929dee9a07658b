"""Discussions and pull requests, told in the Hub's own words."""

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

_ids = itertools.count(1)


@dataclass
class Discussion:
    number: int
    title: str
    author: str
    base: str | None = None  # for a pull request: the ref that it asks to change
    status: str = "open"  # or "closed", "merged", "draft"
    merge_commit: str | None = None
    events: list[Json] = field(default_factory=list)
    id: str = field(default_factory=lambda: _new_id())
    created: str = field(default_factory=lambda: now())

    @property
    def is_pull_request(self) -> bool:
        return self.base is not None

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.number}"

    def comment(self, author: str, text: str) -> Json:
        latest = {"raw": text, "html": f"<p>{text}</p>", "updatedAt": now(), "author": _by(author)}
        data = {"edited": False, "hidden": False, "latest": latest, "history": []}
        return self._add("comment", author, data)

    def change_status(self, author: str, status: str) -> Json:
        self.status = status
        return self._add("status-change", author, {"status": status})

    def rename(self, author: str, title: str) -> Json:
        event = self._add("title-change", author, {"from": self.title, "to": title})
        self.title = title
        return event

    def committed(self, author: str, subject: str, sha: str) -> Json:
        return self._add("commit", author, {"subject": subject, "oid": sha})

    def _add(self, kind: str, author: str, data: Json) -> Json:
        event = {"id": _new_id(), "type": kind, "createdAt": now(), "author": _by(author)}
        self.events.append({**event, "data": data})
        return self.events[-1]

    def listed(self, repo: str) -> Json:
        """As in the list of all discussions."""
        return {
            "num": self.number,
            "title": self.title,
            "status": self.status,
            "isPullRequest": self.is_pull_request,
            "author": _by(self.author),
            "createdAt": self.created,
            "numComments": sum(event["type"] == "comment" for event in self.events),
            "repo": {"name": repo, "type": "model"},
        }

    def told(self, repo: str) -> Json:
        """As a page of its own."""
        told = {**self.listed(repo), "events": self.events}
        if self.is_pull_request:
            changes = {"base": self.base, "mergeCommitId": self.merge_commit}
            told |= {"changes": changes, "filesWithConflicts": [], "diff": ""}
        return told


def _by(author: str) -> Json:
    return {"name": author, "type": "user"}


def _new_id() -> str:
    return f"{next(_ids):024x}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
