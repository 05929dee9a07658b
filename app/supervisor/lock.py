"""One run per data folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.supervisor.errors import AlreadyRunning, SupervisorError

_LOCK_FILE = "up.lock"
_LOOK_EVERY_S = 0.05


@contextmanager
def hold(folder: Path, patience_s: float = 1.0) -> Iterator[int]:
    """Yields the descriptor of the held lock; AlreadyRunning when another run holds it.

    The broker inherits the descriptor: after a killed run the folder stays locked until its broker
    is gone too, so two brokers never write one append-only file. `patience_s` is for that moment.
    The file itself stays: a lock file that is removed can be held by two.
    """
    descriptor = _open(folder)
    try:
        _take(descriptor, folder, patience_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SupervisorError(f"Cannot write to the data folder {folder}: {error.strerror}.") from (
            error
        )


def _take(descriptor: int, folder: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.monotonic() >= deadline:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise AlreadyRunning(folder, holder)
        time.sleep(_LOOK_EVERY_S)
