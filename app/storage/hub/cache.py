"""What has been read of hubs' repositories: a folder for each commit, at the files' own places.

The least recently used folders go first where the cache is over its limit. A folder that a process
has open is never cleared (a shared lock on its file `.used`), and one process at a time fetches
into a file (an exclusive lock on `.state/<file>.lock`, beside its journal).
"""

import fcntl
import json
import os
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from app.domain.errors import Unavailable
from app.domain.hub_errors import HubCacheFull, NotInCache
from app.jobs.hub_ports import HubCommit, HubFile
from app.storage.hub.sparse import SparseFile

USED, COMMIT, REFS, STATE, GONE = ".used", ".commit", "refs", ".state", ".gone"
BLOCK_BYTES = 512  # of st_blocks, whatever the file system
TURN_S = 0.2  # between two looks whether another process has ended its fetch
FOR_ROOM = "the hub cache"


@dataclass(frozen=True)
class HubCache:
    root: Path
    limit_bytes: int
    _open: Counter[Path] = field(default_factory=Counter)  # of this process

    def repository(self, repo_id: str) -> Path:
        return self.root / f"models--{repo_id.replace('/', '--')}"

    def note_ref(self, repo_id: str, revision: str, commit: HubCommit) -> None:
        """What a branch or tag was the last time; the repository may have another name by now."""
        path = self._ref(repo_id, revision)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, f"{commit.repo_id}@{commit.sha}")

    def ref(self, repo_id: str, revision: str) -> HubCommit | None:
        """What is known of the commit that a branch or tag was the last time."""
        path = self._ref(repo_id, revision)
        own_id, _, sha = path.read_text().partition("@") if path.is_file() else ("", "", "")
        return self.known(own_id, sha) if sha else None

    def _ref(self, repo_id: str, revision: str) -> Path:
        return self.repository(repo_id) / REFS / quote(revision, safe="")

    def known(self, repo_id: str, sha: str) -> HubCommit | None:
        """A commit that has been looked at before; None where what was noted cannot be read."""
        try:
            said = json.loads((self.repository(repo_id) / sha / COMMIT).read_text())
            files = [HubFile(**file) for file in said.pop("files")]
            return HubCommit(**said, files=files) if files else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def open(self, commit: HubCommit) -> "Snapshot":
        """The commit's folder, held until it is closed."""
        folder = self.repository(commit.repo_id) / commit.sha
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            held = _hold(folder)
            if held is not None:
                break
        if self.known(commit.repo_id, commit.sha) is None:
            _write(folder / COMMIT, json.dumps(asdict(commit)))
        self._open[folder] += 1
        return Snapshot(commit, folder, held, self)

    def closed(self, folder: Path) -> None:
        self._open[folder] -= 1

    def make_room(self, needed_bytes: int) -> None:
        """Clear what was used longest ago, until as many bytes more are within the limit. Workers
        that ask at the same moment may pass it by what they fetch at that moment.

        Raises HubCacheFull where they never will be, Unavailable where others use too much now.
        """
        for left_over in self.root.glob(f"{GONE}-*"):  # of whoever was killed while clearing
            shutil.rmtree(left_over, ignore_errors=True)
        folders = {path.parent: _size(path.parent) for path in self.root.glob(f"*/*/{USED}")}
        own = sum(size for folder, size in folders.items() if self._open[folder])
        if own + needed_bytes > self.limit_bytes:
            raise HubCacheFull(needed_bytes=own + needed_bytes, limit_bytes=self.limit_bytes)
        left = sum(folders.values()) + needed_bytes - self.limit_bytes
        for folder in sorted(folders, key=_used_at):
            if left <= 0:
                return
            left -= folders[folder] if self._cleared(folder) else 0
        if left > 0:
            raise Unavailable(part=FOR_ROOM)

    def _cleared(self, folder: Path) -> bool:
        """Whether nobody had the folder open, and it is gone now: out of the way as a whole first,
        because whoever finds a part of it would take that for all."""
        try:
            descriptor = os.open(folder / USED, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still(folder / USED, descriptor):  # cleared, and made anew, by others
                return False
            gone = self.root / f"{GONE}-{uuid.uuid4().hex}"
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True


class Snapshot:
    """One commit's folder."""

    def __init__(self, commit: HubCommit, folder: Path, held: int, cache: HubCache) -> None:
        self.commit, self.folder = commit, folder
        self._held, self._cache = held, cache
        self.files: Mapping[str, HubFile] = {file.name: file for file in commit.files}

    @contextmanager
    def file(self, name: str, waiting: Callable[[], None]) -> Iterator[SparseFile]:
        """The local copy of a file, ours alone to fetch into; `waiting` is called while another
        fetches, and may raise to wait no longer."""
        path, state = self.folder / name, self.folder / STATE
        path.parent.mkdir(parents=True, exist_ok=True)
        state.mkdir(exist_ok=True)
        journal = state / f"{quote(name, safe='')}.parts"
        with _alone(journal.with_suffix(".lock"), waiting):
            local = SparseFile(path, self.files[name].size_bytes, journal)
            try:
                yield local
            finally:
                local.close()

    def make_room(self, needed_bytes: int) -> None:
        """Raises HubCacheFull, Unavailable."""
        self._cache.make_room(needed_bytes)

    def check(self) -> None:
        """Raises Unavailable where the folder is no longer the one that was opened: what was seen
        to be here is not."""
        if not _is_still(self.folder / USED, self._held):
            raise Unavailable(part=FOR_ROOM)

    def close(self) -> None:
        os.close(self._held)
        self._cache.closed(self.folder)


def not_in_cache(repo_id: str, revision: str | None, field: str) -> NotInCache:
    return NotInCache(field=field, repository=repo_id, revision=revision or "main")


def _hold(folder: Path) -> int | None:
    """A descriptor whose lock keeps the folder; None where it was just cleared."""
    try:
        descriptor = os.open(folder / USED, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.utime(descriptor)
    if not _is_still(folder / USED, descriptor):
        os.close(descriptor)
        return None
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    pause = threading.Event()
    try:
        while not _locked(descriptor):
            waiting()
            pause.wait(TURN_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _size(folder: Path) -> int:
    """What the folder takes of the disk: a sparse file takes what it holds."""
    return sum(map(_blocks_bytes, folder.rglob("*")))


def _blocks_bytes(path: Path) -> int:
    try:
        return path.lstat().st_blocks * BLOCK_BYTES
    except FileNotFoundError:  # another clears the folder
        return 0


def _used_at(folder: Path) -> float:
    try:
        return (folder / USED).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    made = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    with made.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)
