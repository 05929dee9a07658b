"""What the use cases need from a hub, as Protocols; `app.storage.hub` has the real ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class HubFile:
    """A file of a repository at one commit."""

    name: str  # its path inside the repository, with slashes
    size_bytes: int
    blob_id: str | None = None  # of git: SHA-1 (hex) of "blob <size>\\0" and the content
    sha256: str | None = None  # hex, of what git holds a pointer to (LFS, Xet)


@dataclass(frozen=True)
class HubCommit:
    """A model repository at one commit."""

    repo_id: str  # "org/name", as the hub spells it now
    sha: str  # 40 hex digits
    files: Sequence[HubFile]


class HubReader(Protocol):
    """Reads model repositories. The errors are `app.domain.hub_errors`."""

    def commit(self, repo_id: str, revision: str | None, *, field: str) -> HubCommit:
        """What a branch, tag or commit (the main branch, if None) is now; errors name `field`.

        Raises RepositoryNotFound, RepositoryGated, RevisionNotFound, Unavailable(part="hub").
        """

    def download(self, commit: HubCommit, file: HubFile, into: Path) -> None:
        """Write a whole file, its size and digest checked.

        Raises HubFileCorrupt, and what `commit` raises.
        """
