"""Ranges of a hub's files by HTTP (RFC 9110, section 14): several connections, each of which goes
on where it was cut."""

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import httpx2
from huggingface_hub.utils import get_session, hf_raise_for_status

from app.domain.errors import Unavailable
from app.domain.hub_errors import HubFileCorrupt
from app.storage.hub.session import TIMEOUT, Asked, HubSession, explained
from app.storage.hub.sparse import Range, SparseFile, length

logger = logging.getLogger(__name__)

PIECE_BYTES = 32 << 20  # of one request: a killed process loses at most this of each connection
MOST_FAILURES = 6  # in a row, without a byte between them
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LOOK_S = 0.25  # between two looks at the progress
LEAST_BYTES = 1 << 12  # of an answer that counts as one: a drip would go on for ever
LEAST_BYTES_PER_S, GRACE_S = 1 << 14, 60.0  # on the average, else the hub does not answer
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
REFUSED = frozenset({401, 403})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

Watch = Callable[[int], None]
"""Told how many bytes have come; may raise to end the work."""


class RangesNotServed(Exception):
    """The server answers a range with the whole file."""


class _Again(Exception):
    """Nothing came, but it may the next time."""

    def __init__(self, after_s: float | None = None) -> None:
        super().__init__()
        self.after_s = after_s  # as the server wishes


class _Stopped(Exception):
    """Another connection has failed, or nobody wants the bytes any more."""


@dataclass(frozen=True)
class RemoteFile:
    """Where a file's bytes come from."""

    url: str
    size_bytes: int
    asked: Asked

    def corrupt(self, reason: str) -> HubFileCorrupt:
        return HubFileCorrupt(file=self.asked.file, reason=reason, **self.asked.of)


@dataclass
class Transfer:
    """One file's ranges on their way into its local copy."""

    session: HubSession
    remote: RemoteFile
    local: SparseFile
    connections: int = 8
    _begun: float = field(default_factory=time.monotonic)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _came: int = 0

    def fetch(self, wanted: list[Range], watch: Watch) -> None:
        """Have these ranges here. What has come stays, whatever happens.

        Raises RangesNotServed, HubFileCorrupt, Unavailable, what `explained` raises for a refused
        request, and what `watch` raises.
        """
        pieces = list(_pieces(wanted))
        with (
            explained(self.remote.asked),
            ThreadPoolExecutor(min(self.connections, len(pieces)) or 1) as pool,
        ):
            tasks = [pool.submit(self._piece, begin, end) for begin, end in pieces]
            try:
                self._look_after(tasks, watch)
            finally:
                self._stop.set()
                for task in tasks:
                    task.cancel()
        watch(self._came)

    def fetch_whole(self, watch: Watch) -> None:
        """The whole file by one request without a range; from its begin again, where it is cut."""
        self.local.forget()
        with explained(self.remote.asked):
            for failures in range(MOST_FAILURES):
                came, trouble = self._all(watch)
                if came == self.remote.size_bytes:
                    self.local.note(0, came)
                    return
                self._pause(failures, trouble)
        raise Unavailable(part="hub")

    def _all(self, watch: Watch) -> tuple[int, Exception]:
        """As `_some`, but nothing is noted: what is cut short is asked for again."""
        at = 0
        try:
            for chunk in self._body(None):
                self._take(at, chunk)
                at += len(chunk)
                self._check_pace(self._came)
                watch(at)
        except (_Again, httpx2.TransportError) as error:
            return at, error
        return at, Exception("the connection ended")

    def _look_after(self, tasks: list[Future[None]], watch: Watch) -> None:
        """Raises the first task's error."""
        left = set(tasks)
        while left:
            done, left = wait(left, LOOK_S, FIRST_EXCEPTION)
            for task in done:
                task.result()
            self._check_pace(self._came)
            watch(self._came)

    def _check_pace(self, came: int) -> None:
        elapsed_s = time.monotonic() - self._begun - GRACE_S
        if elapsed_s > 0 and came < elapsed_s * LEAST_BYTES_PER_S:
            raise Unavailable(part="hub")

    def _piece(self, begin: int, end: int) -> None:
        at, failures = begin, 0
        while at < end:
            came, trouble = self._some(at, end)
            at += came
            if at < end:
                failures = 0 if came >= LEAST_BYTES else failures + 1
                if failures >= MOST_FAILURES:
                    raise Unavailable(part="hub") from trouble
                self._pause(failures, trouble)

    def _some(self, begin: int, end: int) -> tuple[int, Exception]:
        """How many bytes one request brought, and what ended it."""
        at, trouble = begin, Exception("the connection ended")
        try:
            for chunk in self._body((begin, end)):
                self._take(at, chunk)
                at += len(chunk)
        except (_Again, httpx2.TransportError) as error:
            trouble = error
        finally:
            self.local.note(begin, at)
        return at - begin, trouble

    def _take(self, at: int, chunk: bytes) -> None:
        if at + len(chunk) > self.remote.size_bytes:
            raise self.remote.corrupt("the hub sends more bytes than it says the file has")
        self.local.write(at, chunk)
        with self._lock:
            self._came += len(chunk)
        if self._stop.is_set():
            raise _Stopped

    def _pause(self, failures: int, error: Exception) -> None:
        """Longer each time, and never all connections at once."""
        logger.warning("%s: %s %s", self.remote.asked.file, type(error).__name__, error)
        wished = error.after_s if isinstance(error, _Again) else None
        pause_s = min(FIRST_PAUSE_S * 2**failures, LONGEST_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        if self._stop.wait(max(pause_s, wished or 0)):
            raise _Stopped

    def _body(self, wanted: Range | None) -> Iterator[bytes]:
        """The bytes of a range, or of the whole file; fewer, where the connection is cut."""
        headers = self.session.headers
        if wanted:
            headers["range"] = f"bytes={wanted[0]}-{wanted[1] - 1}"
        with get_session().stream(
            "GET", self.remote.url, headers=headers, timeout=TIMEOUT, follow_redirects=True
        ) as response:
            self._check(response, wanted)
            left = length([wanted or (0, self.remote.size_bytes)])
            for chunk in response.iter_raw():  # as they come: a chunk that is waited for is lost
                if len(chunk) > left:
                    raise self.remote.corrupt("the hub sends more bytes than were asked for")
                yield chunk
                left -= len(chunk)

    def _check(self, response: httpx2.Response, wanted: Range | None) -> None:
        """Whether these are the bytes that were asked for."""
        refused_by_cdn = response.history and response.status_code in REFUSED  # its link ran out
        if response.status_code in TRANSIENT or refused_by_cdn:
            raise _Again(_retry_after(response))
        hf_raise_for_status(response)
        if wanted is None:
            return
        if response.status_code != httpx2.codes.PARTIAL_CONTENT:
            raise RangesNotServed
        said = response.headers.get("content-range", "")
        found = _CONTENT_RANGE.fullmatch(said)
        expected = (wanted[0], wanted[1] - 1, self.remote.size_bytes)
        if not found or tuple(map(int, found.groups())) != expected:
            reason = f"asked for bytes {wanted[0]}-{wanted[1] - 1}, the hub answers '{said[:80]}'"
            raise self.remote.corrupt(reason)


def _pieces(ranges: list[Range]) -> Iterator[Range]:
    for begin, end in ranges:
        for at in range(begin, end, PIECE_BYTES):
            yield at, min(at + PIECE_BYTES, end)


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds, bounded: a hub that wants longer is asked again by the next attempt of the job."""
    said = response.headers.get("retry-after", "")
    return min(float(said), 4 * LONGEST_PAUSE_S) if said.isdecimal() else None
