"""Which bytes of a file an answer sends, and what it says of them, faults included."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event

from tests.hub.faults import Faults
from tests.hub.log import Request
from tests.hub.objects import Blob

Range = tuple[int | None, int | None]  # first and last byte, as asked


@dataclass
class Sending:
    """A body to send."""

    status: int
    headers: dict[str, str]
    blob: Blob | None = None
    first: int = 0
    count: int = 0  # bytes
    cut_after: int | None = None  # bytes of the body
    turned: int | None = None  # offset in the file of a byte that is sent wrong
    hold: tuple[Event, int] | None = None  # what to wait for, after how many bytes of the body
    honest: bool = field(default=True)  # whether the connection survives it

    def chunks(self) -> Iterator[bytes]:
        """The body's bytes; a break in it is between two chunks."""
        if self.blob is None:
            return
        at, stop = self.first, self.first + self.count
        marks = {stop, *(self.first + mark for mark in self._marks())}
        for mark in sorted(mark for mark in marks if mark <= stop):
            for chunk in self.blob.chunks(at, mark - at):
                yield self._turn(chunk, at)
                at += len(chunk)

    def _marks(self) -> list[int]:
        marks = [] if self.cut_after is None else [self.cut_after]
        return marks if self.hold is None else [*marks, self.hold[1]]

    def _turn(self, chunk: bytes, at: int) -> bytes:
        if self.turned is None or not at <= self.turned < at + len(chunk):
            return chunk
        wrong = bytearray(chunk)
        wrong[self.turned - at] ^= 0xFF
        return bytes(wrong)


def asked(header: str | None) -> Range | None:
    """One range of bytes; None for no range or for what no server need understand."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").replace(" ", ""))
    if not found or found[1] + found[2] == "":
        return None
    first, last = (int(number) if number else None for number in found.groups())
    return first, last


def within(wanted: Range, size: int) -> tuple[int, int] | None:
    """Offset and count of the bytes that exist; None where none does."""
    first, last = wanted
    if first is None:
        count = min(last or 0, size)
        return (size - count, count) if count else None
    end = size if last is None else min(last + 1, size)
    return (first, end - first) if first < end else None


def plan(blob: Blob, request: Request, faults: Faults) -> Sending:
    if request.method == "HEAD":  # it has no body for a fault to be in
        return _honest(blob, request.range)
    ignored = request.range and faults.take("ignore_range", request.repo, request.file)
    sending = _honest(blob, None if ignored else request.range)
    if sending.blob is not None:
        _spoil(sending, faults, request.repo, request.file)
    return sending


def _honest(blob: Blob, wanted: Range | None) -> Sending:
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if wanted is None:
        headers["Content-Length"] = str(blob.size)
        return Sending(200, headers, blob, 0, blob.size)
    found = within(wanted, blob.size)
    if found is None:
        refused = {"Content-Range": f"bytes */{blob.size}", "Content-Length": "0"}
        return Sending(416, headers | refused)
    first, count = found
    headers["Content-Range"] = f"bytes {first}-{first + count - 1}/{blob.size}"
    headers["Content-Length"] = str(count)
    return Sending(206, headers, blob, first, count)


def _spoil(sending: Sending, faults: Faults, repo: str | None, file: str | None) -> None:
    first, stop = sending.first, sending.first + sending.count
    by = faults.take("wrong_length", repo, file)
    if by is not None:
        sending.headers["Content-Length"] = str(sending.count + by)
        sending.honest = False
    if sending.status == 206:
        _misplace(sending, faults.take("wrong_range", repo, file))
    at = faults.take("corrupt", repo, file, lambda at: at == -1 or first <= at < stop)
    if at is not None:
        sending.turned = stop - 1 if at == -1 else at
    sending.cut_after = faults.take("cut", repo, file, lambda after: after < sending.count)
    sending.hold = faults.take("hold", repo, file)


def _misplace(sending: Sending, by: int | None) -> None:
    if by is not None and sending.blob is not None:
        first = sending.first + by
        told = f"bytes {first}-{first + sending.count - 1}/{sending.blob.size}"
        sending.headers["Content-Range"] = told
