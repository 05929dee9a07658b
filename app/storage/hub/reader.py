"""`HubReader` on `huggingface_hub`."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import ModelInfo, hf_hub_url
from huggingface_hub.hf_api import RepoSibling

from app.domain.errors import InvalidField, Unavailable
from app.intake.model_ids import is_hub_id, is_revision, is_sha
from app.jobs.hub_ports import HubCommit, HubFile
from app.storage.hub.ranges import RangesNotServed, RemoteFile, Transfer, Watch
from app.storage.hub.session import Asked, HubSession, explained
from app.storage.hub.sparse import SparseFile

INFO_TIMEOUT_S = 30.0
DOWNLOAD_S = 1800.0  # of one file that somebody waits for


def unwatched(_: int) -> None: ...


@dataclass(frozen=True)
class Hub:
    """`HubReader`. The API's process, a worker and the command line use it alike."""

    session: HubSession = dataclasses.field(default_factory=HubSession)
    connections: int = 8
    field: str = "hub.repo_id"  # what errors of a file's bytes name

    def commit(self, repo_id: str, revision: str | None, *, field: str) -> HubCommit:
        """Raises InvalidField, and what `explained` raises."""
        if not is_hub_id(repo_id):
            raise InvalidField(field=field, reason="is not org/name in the Hub's letters")
        if revision is not None and not is_revision(revision):
            raise InvalidField(field=field, reason="its revision is no branch, tag or commit")
        with explained(Asked(field, repo_id, revision)):
            info = self.session.api.model_info(
                repo_id, revision=revision, files_metadata=True, timeout=INFO_TIMEOUT_S
            )
        return _commit(info, Asked(field, repo_id, revision))

    def download(self, commit: HubCommit, file: HubFile, into: Path) -> None:
        """Raises HubFileCorrupt, and what `explained` raises."""
        local, until = SparseFile(into, file.size_bytes), time.monotonic() + DOWNLOAD_S

        def watch(_: int) -> None:
            if time.monotonic() > until:
                raise Unavailable(part="hub")

        try:
            self.fetch(commit, file, local, [(0, file.size_bytes)], watch)
        finally:
            local.close()
            into.with_name(f"{into.name}.parts").unlink(missing_ok=True)

    def fetch(
        self,
        commit: HubCommit,
        file: HubFile,
        local: SparseFile,
        wanted: list[tuple[int, int]],
        watch: Watch,
        make_room: Callable[[int], None] = unwatched,
    ) -> None:
        """What is missing of these ranges; all of the file, where the hub serves no ranges. Once a
        file is whole, by whichever way, its digest is checked."""
        if missing := local.missing(wanted):
            remote = self.remote(commit, file)
            try:
                Transfer(self.session, remote, local, self.connections).fetch(missing, watch)
            except RangesNotServed:
                make_room(file.size_bytes)
                Transfer(self.session, remote, local).fetch_whole(watch)
        if local.is_whole and not local.is_verified:
            self._verify(commit, file, local)

    def _verify(self, commit: HubCommit, file: HubFile, local: SparseFile) -> None:
        if fault := digest_fault(file, local):
            local.forget()
            raise self.remote(commit, file).corrupt(fault)
        local.note_verified()

    def remote(self, commit: HubCommit, file: HubFile) -> RemoteFile:
        endpoint = self.session.api.endpoint
        url = hf_hub_url(commit.repo_id, file.name, revision=commit.sha, endpoint=endpoint)
        asked = Asked(self.field, commit.repo_id, commit.sha, file.name)
        return RemoteFile(url, file.size_bytes, asked)


@dataclass(frozen=True)
class ClientsHub:
    """`HubReader` for whoever may import adapters: a client does not see by the service's token
    what it could not see by itself, unless the operator says so."""

    with_token: Sequence[str]  # shell-style patterns of repositories
    endpoint: str | None = None

    def commit(self, repo_id: str, revision: str | None, *, field: str) -> HubCommit:
        """Raises as `Hub.commit`."""
        return self._hub(repo_id).commit(repo_id, revision, field=field)

    def download(self, commit: HubCommit, file: HubFile, into: Path) -> None:
        """Raises as `Hub.download`."""
        self._hub(commit.repo_id).download(commit, file, into)

    def _hub(self, repo_id: str) -> Hub:
        is_trusted = any(fnmatchcase(repo_id, pattern) for pattern in self.with_token)
        return Hub(HubSession(self.endpoint, None if is_trusted else False))


def _commit(info: ModelInfo, asked: Asked) -> HubCommit:
    if not (is_sha(info.sha or "") and is_hub_id(info.id)):  # they become names of folders
        raise InvalidField(field=asked.field, reason="the hub says no name and commit of it")
    files = [_file(sibling) for sibling in info.siblings or []]
    return HubCommit(info.id, str(info.sha), files)


def _file(sibling: RepoSibling) -> HubFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    blob_id = None if sha256 else sibling.blob_id
    return HubFile(sibling.rfilename, sibling.size or 0, blob_id, sha256)


def digest_fault(file: HubFile, local: SparseFile) -> str | None:
    """What is wrong with a whole file, by the digest that the hub says it has."""
    if file.sha256:
        found, what, expected = local.sha256(), "SHA-256", file.sha256
    elif file.blob_id:
        found, what, expected = _git_blob_id(local), "git blob id", file.blob_id
    else:
        return None
    return None if found == expected else f"its {what} is {found}, the hub says {expected}"


def _git_blob_id(local: SparseFile) -> str:
    """As git computes it; SHA-1 is what git has, and here it only tells damage."""
    digest = hashlib.sha1(f"blob {local.size_bytes}\0".encode(), usedforsecurity=False)
    digest.update(local.read(0, local.size_bytes))
    return digest.hexdigest()
