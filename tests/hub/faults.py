"""What goes wrong, when a test says so.

Each setter takes `repo` and `file` (a glob over paths in the repository; both None: any), and how
many `times` it happens (None: until `clear`). They concern answers that carry a file's bytes,
on either host, unless said otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from threading import Event, Lock
from typing import Any


@dataclass
class Fault:
    kind: str
    value: Any
    repo: str | None
    file: str | None
    times: int | None

    def concerns(self, repo: str | None, file: str | None) -> bool:
        if self.repo not in (None, repo):
            return False
        return self.file is None or (file is not None and fnmatch(file, self.file))


@dataclass
class Refusal:
    """An answer of one status to requests that a route would have answered."""

    status: int | None  # None: the connection is closed without an answer
    headers: dict[str, str]
    host: str | None
    path: str
    method: str | None
    times: int | None

    def concerns(self, host: str, method: str, path: str) -> bool:
        known = self.host in (None, host) and self.method in (None, method)
        return known and fnmatch(path, self.path)


@dataclass
class Faults:
    down: Event = field(default_factory=Event)  # while set, the hub answers 503
    cdn_down: Event = field(default_factory=Event)  # while set, the CDN answers 503
    _faults: list[Fault] = field(default_factory=list)
    _refusals: list[Refusal] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def cut(self, after: int, *, times: int | None = 1, **which: str | None) -> None:
        """The connection breaks after so many bytes of a body that is longer."""
        self._add("cut", after, times, **which)

    def wrong_length(self, by: int, *, times: int | None = None, **which: str | None) -> None:
        """Content-Length is off by so many bytes."""
        self._add("wrong_length", by, times, **which)

    def wrong_range(self, by: int = 1, *, times: int | None = None, **which: str | None) -> None:
        """Content-Range tells a range so many bytes further on than the one that is sent."""
        self._add("wrong_range", by, times, **which)

    def ignore_range(self, *, times: int | None = None, **which: str | None) -> None:
        """200 with the whole file."""
        self._add("ignore_range", True, times, **which)

    def corrupt(
        self, at: int | None = None, *, times: int | None = None, **which: str | None
    ) -> None:
        """The file's byte at this offset has all bits turned; None: the last byte of each body."""
        self._add("corrupt", -1 if at is None else at, times, **which)

    def hold(
        self, until: Event, *, after: int = 0, times: int | None = None, **which: str | None
    ) -> None:
        """The body waits, after so many bytes of it, until the event is set."""
        self._add("hold", (until, after), times, **which)

    def expired(self, *, times: int | None = None, **which: str | None) -> None:
        """The CDN's URLs have expired when they are given."""
        self._add("expired", True, times, **which)

    def wrong_sha(
        self, sha256: str = "0" * 64, *, times: int | None = None, **which: str | None
    ) -> None:
        """What the hub tells of an LFS file (ETag, siblings, tree) has another SHA-256."""
        self._add("wrong_sha", sha256, times, **which)

    def refuse(
        self,
        status: int | None = 503,
        *,
        times: int | None = 1,
        retry_after: int | str | None = None,
        host: str | None = None,
        method: str | None = None,
        path: str = "*",
    ) -> None:
        """Answer so to the next requests; `path` is a glob, status None drops the connection."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        with self._lock:
            self._refusals.append(Refusal(status, headers, host, path, method, times))

    def rate_limit(self, retry_after: int | str = 1, *, times: int | None = 1) -> None:
        """429 from the hub."""
        self.refuse(429, times=times, retry_after=retry_after, host="hub")

    def clear(self) -> None:
        self.release()
        self.down.clear()
        self.cdn_down.clear()
        with self._lock:
            self._faults.clear()
            self._refusals.clear()

    def release(self) -> None:
        """Let every body go that is held."""
        with self._lock:
            for fault in self._faults:
                if fault.kind == "hold":
                    fault.value[0].set()

    def take(
        self,
        kind: str,
        repo: str | None,
        file: str | None,
        fits: Callable[[Any], bool] = lambda value: True,
    ) -> Any:
        """The value of the fault that happens now, or None; what does not fit does not count."""
        with self._lock:
            for fault in self._faults:
                if fault.kind != kind or not fault.concerns(repo, file):
                    continue
                if fault.times != 0 and fits(fault.value):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault.value
        return None

    def refusal(self, host: str, method: str, path: str) -> Refusal | None:
        if (self.down if host == "hub" else self.cdn_down).is_set():
            return Refusal(503, {}, host, path, method, None)
        with self._lock:
            for refusal in self._refusals:
                if refusal.times != 0 and refusal.concerns(host, method, path):
                    refusal.times = None if refusal.times is None else refusal.times - 1
                    return refusal
        return None

    def _add(
        self,
        kind: str,
        value: Any,
        times: int | None,
        repo: str | None = None,
        file: str | None = None,
    ) -> None:
        with self._lock:
            self._faults.append(Fault(kind, value, repo, file, times))
