"""Every request that reached either host."""

from dataclasses import dataclass, field
from fnmatch import fnmatch
from threading import Lock


@dataclass
class Request:
    host: str  # "hub" or "cdn"
    method: str
    path: str  # unquoted, without the query
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    range: tuple[int | None, int | None] | None  # first and last byte asked for, as asked
    repo: str | None = None
    file: str | None = None  # path in the repository, for what asks for a file's bytes
    status: int | None = None  # None: it has no answer (yet)
    sent: int = 0  # bytes of the body handed to the socket


@dataclass
class Log:
    _requests: list[Request] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def add(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()

    def requests(
        self, *, host: str | None = None, method: str | None = None, path: str = "*"
    ) -> list[Request]:
        """Oldest first; `path` is a glob."""
        with self._lock:
            return [
                request
                for request in self._requests
                if host in (None, request.host)
                and method in (None, request.method)
                and fnmatch(request.path, path)
            ]

    def of(self, repo: str, file: str | None = None) -> list[Request]:
        """The requests for a file's bytes, on either host; of every file without `file`."""
        found = [request for request in self.requests(method="GET") if request.repo == repo]
        return [r for r in found if r.file is not None and file in (None, r.file)]

    def bytes_of(self, repo: str, file: str | None = None) -> int:
        """How many bytes of a file were sent; redirects have none."""
        return sum(r.sent for r in self.of(repo, file) if r.status in (200, 206))

    def ranges_of(self, repo: str, file: str) -> list[tuple[int | None, int | None] | None]:
        """What each request for its bytes asked for; None: all of it. Redirects do not count."""
        return [r.range for r in self.of(repo, file) if r.status not in (302, 307)]

    def with_authorization(self, host: str) -> list[Request]:
        return [r for r in self.requests(host=host) if "authorization" in r.headers]
