"""A child's log: written by the child itself, read here for the terminal and for errors.

The child holds the file, not a pipe to us: it never blocks on a stopped terminal, and what it said
last is on disk when we are gone.
"""

import os
import time
from pathlib import Path

_ROTATE_ABOVE_BYTES = 16 * 1024 * 1024  # looked at when a child starts, not while it runs
_TAIL_LINES = 20
_TAIL_BYTES = 8192


class Log:
    """An append-only file with a place up to which it was shown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started_at = 0  # bytes; where the running child's own output begins
        self._shown_to = 0  # bytes

    def open_for_child(self, name: str) -> int:
        """A descriptor to write to, after a line that says when; the caller closes it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rotate()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self.path, flags, 0o600)  # 0600, because it may name adapters
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        os.write(descriptor, f"--- {stamp} starting the {name}\n".encode())
        self._started_at = self._shown_to = os.fstat(descriptor).st_size
        return descriptor

    def _rotate(self) -> None:
        if self.path.exists() and self.path.stat().st_size > _ROTATE_ABOVE_BYTES:
            self.path.replace(self.path.with_name(self.path.name + ".1"))

    def tail(self) -> str:
        """The last lines of the child that was started last."""
        size = self.path.stat().st_size if self.path.exists() else 0
        lines = _printable(self._read(max(self._started_at, size - _TAIL_BYTES))).splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def new_lines(self) -> list[str]:
        """Whole lines that were written since the last call."""
        fresh = self._read(self._shown_to)
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._shown_to += len(whole)
        return _printable(whole).splitlines()

    def _read(self, start: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""


def _printable(raw: bytes) -> str:
    """Without control characters, because a log may quote what a stranger sent."""
    text = raw.decode("utf-8", "replace")
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
