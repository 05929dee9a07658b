"""Repositories: commits, refs, and who may read and write them."""

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.hub import errors
from tests.hub.discussions import Discussion, now
from tests.hub.objects import Entry

LFS_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.gguf", "*.npz", "*.zip", "*.tar.gz")
MAIN = "refs/heads/main"

Tree = Mapping[str, Entry]  # by the file's path in the repository

_turn = itertools.count()  # so that two equal commits have two names, as two dates would give them


@dataclass(frozen=True)
class User:
    name: str
    token: str
    role: str = "write"  # "read": its token may change nothing


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    tree: Tree
    title: str
    description: str
    author: str
    date: str

    @classmethod
    def of(
        cls, parent: str | None, tree: Tree, title: str, author: str, description: str = ""
    ) -> "Commit":
        listed = "".join(f"{path}\0{tree[path].git_sha1}\n" for path in sorted(tree))
        told = f"{parent}\n{title}\n{author}\n{next(_turn)}\n{listed}"
        sha = hashlib.sha1(told.encode()).hexdigest()
        return cls(sha, parent, tree, title, description, author, now())


@dataclass
class Repository:
    name: str  # organization/name
    private: bool = False
    disabled: bool = False
    gated_to: frozenset[str] | None = None  # tokens that have access; None: not gated
    members: frozenset[str] = frozenset()  # tokens that read and write it
    lfs: tuple[str, ...] = LFS_PATTERNS
    refs: dict[str, str] = field(default_factory=dict)  # full name: commit
    commits: dict[str, Commit] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    created: str = field(default_factory=now)

    @property
    def id(self) -> str:
        return hashlib.sha1(self.name.encode()).hexdigest()[:24]

    @property
    def head(self) -> str | None:
        return self.refs.get(MAIN)

    def ref(self, revision: str) -> str | None:
        """The full name of the ref that a revision names."""
        candidates = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((ref for ref in candidates if ref in self.refs), None)

    def resolve(self, revision: str) -> Commit:
        ref = self.ref(revision)
        if ref:
            return self.commits[self.refs[ref]]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = [sha for sha in self.commits if sha.startswith(revision)]
            if len(found) == 1:
                return self.commits[found[0]]
        raise errors.revision_not_found(revision)

    def push(self, ref: str, commit: Commit) -> tuple[str | None, str]:
        """Move a ref to a new commit; where it was, and where it is."""
        old = self.refs.get(ref)
        self.commits[commit.sha] = commit
        self.refs[ref] = commit.sha
        return old, commit.sha

    def history(self, commit: Commit) -> list[Commit]:
        """Newest first."""
        found = [commit]
        while found[-1].parent:
            found.append(self.commits[found[-1].parent])
        return found

    def discussion(self, number: int) -> Discussion:
        if not 1 <= number <= len(self.discussions):
            raise errors.HubError(404, "Discussion not found")
        return self.discussions[number - 1]

    def check_reads(self, user: User | None) -> None:
        """What it tells of itself, but for its files."""
        if self.private and (user is None or user.token not in self.members):
            raise errors.repo_not_found(known_user=user is not None)
        if self.disabled:
            raise errors.disabled()

    def check_downloads(self, user: User | None) -> None:
        self.check_reads(user)
        if self.gated_to is None:
            return
        if user is None or user.token not in self.gated_to | self.members:
            raise errors.gated(self.name, known_user=user is not None)

    def check_proposes(self, user: User | None) -> User:
        """Whoever reads it may open discussions and pull requests."""
        self.check_reads(user)
        if user is None:
            raise errors.HubError(401, "Invalid username or password.")
        if user.role != "write":
            raise errors.forbidden("This token may only read")
        return user

    def check_writes(self, user: User | None) -> User:
        user = self.check_proposes(user)
        if user.token not in self.members:
            raise errors.forbidden()
        return user


def full_ref(name: str) -> str:
    return name if name.startswith("refs/") else f"refs/heads/{name}"
