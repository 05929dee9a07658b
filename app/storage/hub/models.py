"""`Models` of a worker and of the command line: folders first, then the hub."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from app.domain.checkpoint import Checkpoint
from app.domain.errors import CheckpointRefused
from app.intake.checkpoint import read_checkpoint
from app.intake.model_ids import ModelName, is_sha, parse_model_name
from app.jobs.hub_ports import HubCommit
from app.jobs.ports import Models
from app.storage.hub.cache import HubCache, not_in_cache
from app.storage.hub.reader import Hub
from app.storage.hub.remote import (
    OnDownload,
    RemoteCheckpoint,
    digest_of,
    hub_digest,
    is_small,
)
from app.storage.hub.session import MAIN, is_offline
from app.storage.models import FolderModels

Note = Callable[[str, str], None]
"""Told what a model, as named, was resolved to (commit SHA)."""


@dataclass(frozen=True)
class HubModels:
    """Where models come from; `opened` gives them to one job."""

    folders: FolderModels
    hub: Hub
    cache: HubCache

    @contextmanager
    def opened(
        self, pins: Mapping[str, str], note: Note, on_download: OnDownload
    ) -> Iterator[Models]:
        """`pins` are commit SHAs by model as named, of an earlier attempt: they are taken again."""
        with ExitStack() as stack:
            yield OpenModels(self, dict(pins), note, on_download, stack)


@dataclass
class OpenModels:
    """`Models`, whose folders stay as long as the job is at work."""

    of: HubModels
    pins: dict[str, str]
    note: Note
    on_download: OnDownload
    stack: ExitStack
    _found: dict[str, Checkpoint] = field(default_factory=dict)  # by model as named
    _commits: dict[tuple[str, str], HubCommit] = field(default_factory=dict)  # by id and revision

    def is_remote(self, model_id: str, *, field: str) -> bool:
        return False  # whatever is remote is read here

    def checkpoint(self, model_id: str, *, field: str) -> Checkpoint:
        """A model that an earlier attempt has read from the hub is read from there again.

        Raises InvalidField, ModelNotAllowed, UnknownModel, CheckpointRefused, and what
        `HubReader` and `RemoteCheckpoint` raise.
        """
        is_remote = self.of.folders.is_remote(model_id, field=field) or model_id in self.pins
        if not is_remote:
            return self.of.folders.checkpoint(model_id, field=field)
        if model_id not in self._found:
            self._found[model_id] = self._of_hub(model_id, field)
        return self._found[model_id]

    def _of_hub(self, model_id: str, field: str) -> Checkpoint:
        """The library's own cache may have the very commit, whole."""
        commit = self._resolved(model_id, field)
        self.of.folders.check_allowed(commit.repo_id, field=field)  # it may have been renamed
        if self.pins.get(model_id) != commit.sha:
            self.pins[model_id] = commit.sha
            self.note(model_id, commit.sha)
        found = _of_library(commit, model_id, field)
        if found is None and not commit.files:
            raise not_in_cache(commit.repo_id, commit.sha, field)
        return found or self._remote(commit, model_id, field)

    def _resolved(self, model_id: str, field: str) -> HubCommit:
        """One commit for one revision, however often and in however many ways it is named."""
        name = parse_model_name(model_id, field=field)
        key = name.id, self.pins.get(model_id) or name.revision or MAIN
        if key not in self._commits:
            wanted = ModelName(*key)
            ask = self._offline if is_offline() else self._commit
            self._commits[key] = ask(wanted, field)
        return self._commits[key]

    def _commit(self, name: ModelName, field: str) -> HubCommit:
        """A commit that was looked at before is not asked for again: it never changes."""
        revision = name.revision or MAIN
        known = self.of.cache.known(name.id, revision) if is_sha(revision) else None
        if known:
            return known
        commit = self.of.hub.commit(name.id, revision, field=field)
        self.of.cache.note_ref(name.id, revision, commit)
        return commit

    def _offline(self, name: ModelName, field: str) -> HubCommit:
        """What the branch or tag was when it was looked at the last time; without its files where
        only the library knows it. Raises NotInCache."""
        cache, revision = self.of.cache, name.revision or MAIN
        known = cache.known(name.id, revision) if is_sha(revision) else None
        known = known or cache.ref(name.id, revision)
        folder = _library_folder(name.id, revision)
        if known is None and folder is not None:
            return HubCommit(name.id, folder.name, [])
        if known is None:
            raise not_in_cache(name.id, name.revision, field)
        return known

    def _remote(self, commit: HubCommit, model_id: str, field: str) -> Checkpoint:
        snapshot = self.stack.enter_context(closing(self.of.cache.open(commit)))
        hub, on_download = replace(self.of.hub, field=field), self.on_download
        return RemoteCheckpoint(hub, snapshot, model_id, field, on_download).read()


def _library_folder(repo_id: str, revision: str) -> Path | None:
    """Where `huggingface_hub` keeps a commit, if it has it."""
    try:
        return Path(snapshot_download(repo_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _of_library(commit: HubCommit, model_id: str, field: str) -> Checkpoint | None:
    """The commit as the library has downloaded it, where nothing of it is missing."""
    folder = _library_folder(commit.repo_id, commit.sha)
    small = [file.name for file in commit.files if is_small(file)]
    if folder is None or not all((folder / name).is_file() for name in small):
        return None
    with suppress(CheckpointRefused):  # a shard is missing, most likely
        found = read_checkpoint(folder, field=field, model=model_id, is_partial=True)
        digest = hub_digest(found.digest, _weights_of_library(commit, found))
        return replace(found, digest=digest, revision=commit.sha)
    return None


def _weights_of_library(commit: HubCommit, found: Checkpoint) -> dict[str, str]:
    """The hub's digest of each weights file: by what it says, else by the name that the library
    gives the file behind its link."""
    said = {file.name: digest_of(commit, file) for file in commit.files}
    files = {tensor.file for tensor in found.tensors.values()}
    return {file.name: said.get(file.name) or file.resolve().name for file in files}
