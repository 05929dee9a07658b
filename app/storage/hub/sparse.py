"""A local copy of some ranges of a remote file: a sparse file with every byte at its own place, and
a journal that says which are there.

Whoever reads a place that is not there gets zeros, so nobody may look at a range before `missing`
has said nothing of it. The journal is written after the data is on the disk, so a process that is
killed, or a machine that loses its power, leaves a shorter journal and never a wrong one.
"""

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

Range = tuple[int, int]
"""First byte, and the one after the last."""

VERIFIED = "verified"
HASH_BYTES = 1 << 22


class SparseFile:
    """Safe to write to from several threads; one process at a time may fetch into it."""

    def __init__(self, path: Path, size_bytes: int, journal: Path | None = None) -> None:
        """Makes the file, holding nothing, where it is not there; its journal lies beside it, if
        nowhere else."""
        self.path, self.size_bytes = path, size_bytes
        self._journal = journal or path.with_name(f"{path.name}.parts")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if os.fstat(self._descriptor).st_size != size_bytes:
            self._journal.unlink(missing_ok=True)  # it was of another file
            os.truncate(self._descriptor, 0)
            os.truncate(self._descriptor, size_bytes)
        self._lock = threading.Lock()
        self._held, self.is_verified = self._read()

    def missing(self, wanted: Iterable[Range]) -> list[Range]:
        """What of the ranges is not there, merged and in order."""
        return subtract(merged(wanted), self._held)

    def write(self, offset: int, data: bytes) -> None:
        while data:
            count = os.pwrite(self._descriptor, data, offset)
            data, offset = data[count:], offset + count

    def read(self, begin: int, end: int) -> bytes:
        """Bytes that are there."""
        return os.pread(self._descriptor, end - begin, begin)

    def note(self, begin: int, end: int) -> None:
        """That a range has been written."""
        if begin == end:
            return
        os.fdatasync(self._descriptor) if hasattr(os, "fdatasync") else os.fsync(self._descriptor)
        with self._lock:
            self._append(f"{begin} {end}")
            self._held = merged([*self._held, (begin, end)])

    @property
    def is_whole(self) -> bool:
        return not self.missing([(0, self.size_bytes)])

    def sha256(self) -> str:
        """Of the whole file (hex)."""
        digest = hashlib.sha256()
        for begin in range(0, self.size_bytes, HASH_BYTES):
            digest.update(self.read(begin, min(begin + HASH_BYTES, self.size_bytes)))
        return digest.hexdigest()

    def note_verified(self) -> None:
        """That the whole file has the digest it should have."""
        with self._lock:
            self._append(VERIFIED)
            self.is_verified = True

    def forget(self) -> None:
        """Hold nothing any more. The bytes stay: somebody may have them mapped."""
        with self._lock:
            self._journal.unlink(missing_ok=True)
            self._held, self.is_verified = [], False

    def close(self) -> None:
        os.close(self._descriptor)

    def _append(self, line: str) -> None:
        with self._journal.open("a") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> tuple[list[Range], bool]:
        """What the journal says; a last line that was cut short says nothing."""
        if not self._journal.exists():
            return [], False
        *lines, cut = self._journal.read_text().split("\n")
        if cut:
            os.truncate(self._journal, self._journal.stat().st_size - len(cut))
        parts = [line.split() for line in lines if line != VERIFIED]
        held = [(int(part[0]), int(part[1])) for part in parts if len(part) == 2]
        return merged(held), VERIFIED in lines


def merged(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """In order, and without overlaps; ranges with at most `gap` bytes between them become one."""
    found: list[Range] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif begin < end:
            found.append((begin, end))
    return found


def subtract(ranges: list[Range], held: list[Range]) -> list[Range]:
    """What of the ranges is in none of the others; both merged."""
    left = []
    for begin, end in ranges:
        for held_begin, held_end in held:
            if begin < held_end and held_begin < end:
                if begin < held_begin:
                    left.append((begin, held_begin))
                begin = held_end
        if begin < end:
            left.append((begin, end))
    return left


def length(ranges: Iterable[Range]) -> int:
    return sum(end - begin for begin, end in ranges)
