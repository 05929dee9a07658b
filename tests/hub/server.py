"""The hub, as a test starts, fills and reads it."""

import dataclasses
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from threading import Event
from types import TracebackType

from tests.hub import routes
from tests.hub.cdn import Cdn
from tests.hub.discussions import Discussion
from tests.hub.faults import Faults
from tests.hub.log import Log
from tests.hub.objects import Contents, Entry, Store
from tests.hub.repositories import LFS_PATTERNS, MAIN, Commit, Repository, User, full_ref
from tests.hub.state import State
from tests.hub.webhooks import Webhooks
from tests.hub.wire import Host

OWNER = "owner"


class LocalHub:
    """Two hosts on loopback: the hub itself, and the CDN that its LFS files lie on.

    `with LocalHub() as hub:` starts and stops them. `endpoint` goes to `HfApi(endpoint=...)` or,
    to a process of its own, as `environment(...)`, because huggingface_hub reads HF_ENDPOINT when
    it is imported.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hub-"))
        self.log, self.faults = Log(), Faults()
        store = Store(self._folder)
        self.cdn = Cdn(store, self.faults)
        self.state = State(store, self.cdn, self.faults)
        self.token = self.user(OWNER)  # reads and writes everything

    @property
    def webhooks(self) -> Webhooks:
        return self.state.webhooks

    @property
    def endpoint(self) -> str:
        return self.state.base

    @property
    def cdn_endpoint(self) -> str:
        return self.cdn.base

    @property
    def down(self) -> Event:
        """While set, the hub answers 503."""
        return self.faults.down

    @property
    def crashes(self) -> list[str]:
        """Tracebacks of this server's own faults, of which a test should see none."""
        return [*self._hub.crashes, *self._cdn.crashes]

    def start(self) -> "LocalHub":
        app = partial(routes.answer, self.state)
        self._hub = Host("hub", "127.0.0.1", app, self.log, self.faults)
        self._cdn = Host("cdn", "localhost", self.cdn.answer, self.log, self.faults)
        self.state.base, self.cdn.base = self._hub.base, self._cdn.base
        return self

    def stop(self) -> None:
        self.faults.release()
        self.webhooks.stop()
        self._hub.stop()
        self._cdn.stop()
        shutil.rmtree(self._folder)

    def __enter__(self) -> "LocalHub":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def environment(self, token: str | None = None) -> dict[str, str]:
        """What makes huggingface_hub in another process use this hub, and a cache of its own."""
        given = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self._folder / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        return given if token is None else {**given, "HF_TOKEN": token}

    def user(self, name: str, role: str = "write") -> str:
        """A user's token; with the role "read" it may change nothing."""
        token = f"hf_{name}_{role}"
        self.state.users[token] = User(name, token, role)
        return token

    def create(
        self,
        name: str,
        *,
        private: bool = False,
        gated_to: Collection[str] | None = None,
        members: Collection[str] = (),
        lfs: Iterable[str] = LFS_PATTERNS,
    ) -> str:
        """A repository with its first commit, as the Hub makes it; `gated_to` and `members` are
        tokens: whose files it gives, and who also writes it (and reads it, if private)."""
        gated = None if gated_to is None else frozenset(gated_to)
        members = frozenset({self.token, *members})
        repo = Repository(name, private, False, gated, members, tuple(lfs))
        with self.state.lock:
            self.state.repositories[name] = repo
            self.state.tell(repo, "create", "repo")
        return self.commit(name, {".gitattributes": _attributes(repo.lfs)}, title="initial commit")

    def repository(self, name: str) -> Repository:
        return self.state.repositories[name]

    def commit(
        self,
        name: str,
        files: Mapping[str, Contents | None],  # None: deleted
        ref: str = "main",
        *,
        lfs: Iterable[str] | None = None,  # None: as the repository was created
        title: str = "Commit",
    ) -> str:
        """What `git push` would do; a branch that is not there begins at main."""
        repo = self.repository(name)
        patterns = repo.lfs if lfs is None else tuple(lfs)
        entries = {path: self._entry(path, data, patterns) for path, data in files.items()}
        with self.state.lock:
            begun = repo.ref(full_ref(ref)) or repo.ref(MAIN)
            parent = repo.resolve(begun) if begun else None
            tree = {**(parent.tree if parent else {}), **entries}
            kept = {path: entry for path, entry in tree.items() if entry is not None}
            made = Commit.of(parent.sha if parent else None, kept, title, OWNER)
            self.state.push(repo, full_ref(ref), made)
        return made.sha

    def _entry(self, path: str, data: Contents | None, lfs: tuple[str, ...]) -> Entry | None:
        if data is None:
            return None
        return Entry(self.state.store.put(data), any(fnmatch(path, pattern) for pattern in lfs))

    def read(self, name: str, revision: str, path: str) -> bytes:
        return self.repository(name).resolve(revision).tree[path].blob.read()

    def files(self, name: str, revision: str = "main") -> list[str]:
        return sorted(self.repository(name).resolve(revision).tree)

    def sha(self, name: str, revision: str = "main") -> str:
        return self.repository(name).resolve(revision).sha

    def move_ref(self, name: str, ref: str, sha: str | None) -> None:
        """Point a ref at any commit, as a forced push or a new tag does; None deletes it. A commit
        that no ref leads to can still be read by its name."""
        repo = self.repository(name)
        with self.state.lock:
            old = repo.refs.pop(full_ref(ref), None)
            if sha is not None:
                repo.refs[full_ref(ref)] = repo.resolve(sha).sha
            self.state.told_refs(repo, full_ref(ref), old, sha)

    def delete_ref(self, name: str, ref: str) -> None:
        self.move_ref(name, ref, None)

    def rename(self, name: str, new: str) -> None:
        """The old name leads to the new one, as the Hub has it."""
        with self.state.lock:
            repo = self.state.repositories.pop(name)
            self.state.repositories[new] = dataclasses.replace(repo, name=new)
            self.state.renamed[name] = new

    def delete(self, name: str) -> None:
        with self.state.lock:
            repo = self.state.repositories.pop(name)
            self.state.tell(repo, "delete", "repo")

    def discussions(self, name: str) -> list[Discussion]:
        return list(self.repository(name).discussions)


def _attributes(lfs: tuple[str, ...]) -> str:
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in lfs)
