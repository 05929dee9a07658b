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
from app.storage.hub.remote import OnDownload, RemoteCheckpoint, is_small
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
    _found: dict[str, Checkpoint] = field(default_factory=dict)

    def is_remote(self, model_id: str, *, field: str) -> bool:
        return False  # whatever is remote is read here

    def checkpoint(self, model_id: str, *, field: str) -> Checkpoint:
        """Raises InvalidField, ModelNotAllowed, UnknownModel, CheckpointRefused, and what
        `HubReader` and `RemoteCheckpoint` raise."""
        if not self.of.folders.is_remote(model_id, field=field):
            return self.of.folders.checkpoint(model_id, field=field)
        if model_id not in self._found:
            self._found[model_id] = self._of_hub(model_id, field)
        return self._found[model_id]

    def _of_hub(self, model_id: str, field: str) -> Checkpoint:
        """The library's own cache may have the very commit, whole."""
        name = parse_model_name(model_id, field=field)
        if pinned := self.pins.get(model_id):
            name = name._replace(revision=pinned)
        commit = self._offline(name, field) if is_offline() else self._commit(name, field)
        if self.pins.get(model_id) != commit.sha:
            self.pins[model_id] = commit.sha
            self.note(model_id, commit.sha)
        return _cached(commit, model_id, field) or self._remote(commit, model_id, field)

    def _commit(self, name: ModelName, field: str) -> HubCommit:
        """A commit that was looked at before is not asked for again: it never changes."""
        if name.revision and is_sha(name.revision):
            known = self.of.cache.known(name.id, name.revision)
            if known:
                return known
        commit = self.of.hub.commit(name.id, name.revision, field=field)
        self.of.cache.note_ref(name.id, name.revision or MAIN, commit.sha)
        return commit

    def _offline(self, name: ModelName, field: str) -> HubCommit:
        """What the branch or tag was when it was looked at the last time. Raises NotInCache."""
        cache, revision = self.of.cache, name.revision or MAIN
        sha = revision if is_sha(revision) else cache.ref(name.id, revision)
        known = cache.known(name.id, sha) if sha else None
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


def _cached(commit: HubCommit, model_id: str, field: str) -> Checkpoint | None:
    """The commit as the library has downloaded it, where nothing of it is missing."""
    folder = _library_folder(commit.repo_id, commit.sha)
    if folder is None or not all(
        (folder / file.name).is_file() for file in commit.files if is_small(file)
    ):
        return None
    with suppress(CheckpointRefused):  # a shard is missing, most likely
        return replace(read_checkpoint(folder, field=field, model=model_id), revision=commit.sha)
    return None
