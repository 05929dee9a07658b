"""What the hub knows, and what happens when it changes; every route is a use of this."""

from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from tests.hub import errors
from tests.hub.cdn import Cdn
from tests.hub.discussions import Discussion
from tests.hub.faults import Faults
from tests.hub.objects import Entry, Store
from tests.hub.repositories import MAIN, Commit, Repository, User
from tests.hub.webhooks import Webhooks, comment_told, discussion_told
from tests.hub.wire import Call


@dataclass
class State:
    store: Store
    cdn: Cdn
    faults: Faults
    webhooks: Webhooks = field(default_factory=Webhooks)
    base: str = ""  # scheme, host and port, once it runs
    repositories: dict[str, Repository] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)  # old name: new name
    users: dict[str, User] = field(default_factory=dict)  # by token
    lock: RLock = field(default_factory=RLock)
    tree_page: int = 1000  # entries in one page of a tree
    resolve_cache: bool = False  # git files behind a redirect on the hub itself, as of 2025
    stale_pull_requests: bool = True  # a pull request may start from a commit that is not the head

    def user(self, call: Call) -> User | None:
        if call.token is None:
            return None
        if call.token not in self.users:
            raise errors.bad_token()
        return self.users[call.token]

    def find(self, call: Call, name: str) -> tuple[Repository, User | None]:
        """The repository that a request names, if whoever asks may know of it."""
        user = self.user(call)
        if name in self.renamed:
            raise errors.moved(call.target.replace(name, self.renamed[name], 1))
        repo = self.repositories.get(name)
        if repo is None:
            raise errors.repo_not_found(known_user=user is not None)
        call.request.repo = name
        repo.check_reads(user)
        return repo, user

    def push(self, repo: Repository, ref: str, commit: Commit) -> None:
        self.told_refs(repo, ref, *repo.push(ref, commit))

    def told_refs(self, repo: Repository, ref: str, old: str | None, new: str | None) -> None:
        moved = [{"ref": ref, "oldSha": old, "newSha": new}]
        self.tell(repo, "update", "repo.content", updatedRefs=moved)

    def tell(self, repo: Repository, action: str, scope: str, **more: Any) -> None:
        self.webhooks.tell(repo, self.base, action, scope, **more)

    def open(
        self, repo: Repository, user: User, title: str, text: str, base: str | None = None
    ) -> Discussion:
        """A discussion, or with `base` a pull request."""
        number = len(repo.discussions) + 1
        discussion = Discussion(number, title, user.name, base)
        repo.discussions.append(discussion)
        event = discussion.comment(user.name, text)
        told = discussion_told(repo, discussion, self.base)
        comment = comment_told(repo, discussion, event, self.base)
        self.tell(repo, "create", "discussion", discussion=told, comment=comment)
        return discussion

    def comment(self, repo: Repository, user: User, talk: Discussion, text: str) -> dict[str, Any]:
        event = talk.comment(user.name, text)
        told = discussion_told(repo, talk, self.base)
        comment = comment_told(repo, talk, event, self.base)
        self.tell(repo, "create", "discussion.comment", discussion=told, comment=comment)
        return event

    def changed(self, repo: Repository, talk: Discussion) -> None:
        self.tell(repo, "update", "discussion", discussion=discussion_told(repo, talk, self.base))

    def merge(self, repo: Repository, user: User, talk: Discussion) -> None:
        """What the pull request changed since it began, on top of what its base is now."""
        base = talk.base or MAIN
        commit, head = repo.resolve(talk.ref), repo.resolve(base)
        begun = repo.commits[_begun(repo, commit, head)].tree
        tree: dict[str, Entry] = {p: e for p, e in head.tree.items() if not _gone(p, begun, commit)}
        tree |= {path: e for path, e in commit.tree.items() if begun.get(path) != e}
        merged = Commit.of(head.sha, tree, talk.title, user.name)
        talk.merge_commit = merged.sha
        talk.change_status(user.name, "merged")
        self.push(repo, base, merged)
        self.changed(repo, talk)


def _gone(path: str, begun: Any, commit: Commit) -> bool:
    return path in begun and path not in commit.tree


def _begun(repo: Repository, commit: Commit, head: Commit) -> str:
    """The newest commit that both have."""
    known = {ancestor.sha for ancestor in repo.history(head)}
    return next(a.sha for a in repo.history(commit) if a.sha in known)
