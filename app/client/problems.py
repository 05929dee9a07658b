"""What can go wrong, as exceptions.

ClientError
|-- ProblemError            the service answered with a problem (RFC 9457), carried whole
|   |-- Refused             400, 422: what was sent cannot be used
|   |-- Unauthenticated     401
|   |-- Forbidden           403
|   |-- NotFound            404
|   |-- Conflict            409: the state does not allow it now
|   |-- TooLarge            413
|   |-- Throttled           429; `retry_after_s`
|   `-- ServerFault         5xx
|       `-- Unavailable     503; `retry_after_s`
|-- DigestMismatch          a download is not what the service says it is
`-- WaitTimeout             the job has not ended in time

Where nobody answers it is an httpx.TransportError, as httpx raises it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx


class ClientError(Exception):
    """Anything below."""


class ProblemError(ClientError):
    """The service answered with a problem; `problem` has its members."""

    def __init__(self, problem: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or "the request failed")
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        return int(self.problem.get("status", 0))

    @property
    def type(self) -> str:
        """E.g. `urn:adapter-safety:problem:job-not-found`; stable."""
        return str(self.problem.get("type", "about:blank"))


class Refused(ProblemError):
    pass


class Unauthenticated(ProblemError):
    pass


class Forbidden(ProblemError):
    pass


class NotFound(ProblemError):
    pass


class Conflict(ProblemError):
    pass


class TooLarge(ProblemError):
    pass


class Throttled(ProblemError):
    pass


class ServerFault(ProblemError):
    pass


class Unavailable(ServerFault):
    pass


class DigestMismatch(ClientError):
    """The bytes are not those that the answer's Repr-Digest tells of; nothing was kept."""

    def __init__(self, path: str, expected: str | None, found: str) -> None:
        said = (
            f"should have the SHA-256 {expected}" if expected else "has no SHA-256 to check it by"
        )
        super().__init__(f"{path}: the download {said}, and has {found}")
        self.expected, self.found = expected, found


class WaitTimeout(ClientError):
    """The job goes on; `job` is how it was when it was last asked for."""

    def __init__(self, job: Mapping[str, Any], timeout_s: float) -> None:
        super().__init__(f"job {job['id']} is {job['status']} after {timeout_s:g} s")
        self.job = job


FAMILIES: Mapping[int, type[ProblemError]] = {
    400: Refused,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Refused,
    429: Throttled,
    503: Unavailable,
}


def problem_of(response: httpx.Response) -> ProblemError:
    """Of an answer that was read whole and is no success; also of what no service of ours wrote."""
    status = response.status_code
    try:
        body = response.json()
    except ValueError:
        body = None
    members = body if isinstance(body, dict) else {"title": f"HTTP {status}"}
    family = FAMILIES.get(status, ServerFault if status >= 500 else ProblemError)
    return family({"status": status, **members}, retry_after_s(response.headers))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds, of either form of Retry-After (RFC 9110, 10.2.3); None without one that can be
    read."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        at = parsedate_to_datetime(said)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
