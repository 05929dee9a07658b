"""Turns on one host without Redis: `flock` on a file for each name."""

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)


class FileTurns:
    """`Turns` among the processes of one host that share `folder`.

    The system gives a lock back when its process ends, however it ends. Nothing
    stays in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told = False

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait until the caller alone has the turn called `name`; go on without it on a file system
        that has no locks."""
        path = self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.lock"
        descriptor = self._locked(path)
        try:
            yield
        finally:
            if descriptor is not None:
                with suppress(OSError):  # while it is ours: whoever waits for it tries anew
                    path.unlink()
                os.close(descriptor)

    def _locked(self, path: Path) -> int | None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while (descriptor := _try(path)) is None:
                pass
            return descriptor
        except OSError as error:
            log = logger.debug if self._told else logger.warning
            log("working without taking turns: %s", error)
            self._told = True
            return None


def _try(path: Path) -> int | None:
    """Wait for the file's lock; None where its last holder removed the file meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
    except BaseException:  # a time limit's too, which may end the wait
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
