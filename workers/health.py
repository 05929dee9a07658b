"""Whether a worker does work, by what its child does and not by whether it is there.

The child signs with each canary (`workers.canary`), each renewal of a job's lease and each step of
a job. The parent looks at the last sign and writes what it sees into a file, which the health check
of a container reads. Pools of one child are what this service runs; of several, one that signs is
enough.
"""

import json
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

SIGN = struct.Struct("d")  # on the monotonic clock, which the machine's processes share
FORGOTTEN_AFTER_S = 24 * 3600.0  # because containers that are made anew have other host names

State = Literal["starting", "ready", "silent", "no broker"]


class SignsOfLife:
    """Shared memory of a parent and the children that it forks after this was made."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def sign(self) -> None:
        """This process has done something."""
        SIGN.pack_into(self._page, 0, time.monotonic())

    def last(self) -> float:
        """When it was; 0 before the first."""
        (at,) = SIGN.unpack_from(self._page)
        return float(at)


signs = SignsOfLife()  # imported, and so made, before the fork


@dataclass(frozen=True)
class Health:
    """What a parent last saw. Times are on the monotonic clock."""

    state: State
    pid: int
    seen_at: float  # when the parent looked
    signed_at: float  # when the child last signed; 0: never
    silent_s: float  # how long a child, or a parent, may show nothing

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    def trouble(self, now: float) -> str | None:
        """What a restart may mend; None where all is well, or is not this worker's fault."""
        if now - self.seen_at > self.silent_s:
            return f"worker {self.pid} has not looked after itself for {now - self.seen_at:.0f} s"
        if self.state == "silent":
            return f"the child of worker {self.pid} has shown no work for {self._age(now)}"
        return None

    def _age(self, now: float) -> str:
        return f"{now - self.signed_at:.0f} s"


@dataclass
class Watcher:
    """The parent's eye on its child."""

    silent_s: float
    signs: SignsOfLife
    clock: Callable[[], float] = time.monotonic
    _broker_since: float = field(init=False)  # since when the broker has taken the canaries

    def __post_init__(self) -> None:
        self._broker_since = self.clock()

    def look(self, *, broker_answers: bool) -> Health:
        """The silence counts only while the child could have been asked."""
        now, signed = self.clock(), self.signs.last()
        if not broker_answers:
            self._broker_since = now
        is_fresh = now - signed <= self.silent_s
        if is_fresh and signed:
            state: State = "ready" if broker_answers else "no broker"
        elif not broker_answers:
            state = "no broker"
        elif now - self._broker_since <= self.silent_s:
            state = "starting"
        else:
            state = "silent"
        return Health(state, os.getpid(), now, signed, self.silent_s)


# ------------------------------------------------------------------------------------------ files
def write_health(folder: Path, health: Health) -> None:
    """For a health check on this machine, whole or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, health.pid)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(health)))
    fresh.replace(path)


def forget_health(folder: Path) -> None:
    """This worker ends, or begins: in a container the one before had its process id."""
    with suppress(OSError):
        _path(folder, os.getpid()).unlink(missing_ok=True)


def forget_the_dead(folder: Path) -> None:
    """Files of this machine's workers that are gone, and of others that are a day old."""
    for path in folder.glob("*.json"):
        with suppress(OSError, ValueError, IndexError):
            host, _, pid = path.stem.rpartition("-")
            is_old = time.time() - path.stat().st_mtime > FORGOTTEN_AFTER_S
            if is_old or (host == socket.gethostname() and not is_alive(int(pid))):
                path.unlink()


def read_healths(folder: Path) -> Iterator[Health]:
    """Of this machine's workers. What cannot be read is left out: it is being replaced."""
    for path in sorted(folder.glob(f"{socket.gethostname()}-*.json")):
        with suppress(OSError, ValueError, TypeError):
            health = Health(**json.loads(path.read_text()))
            was_before = health.seen_at > time.monotonic()  # the machine has started again since
            if is_alive(health.pid) and not was_before:
                yield health


def _path(folder: Path, pid: int) -> Path:
    return folder / f"{socket.gethostname()}-{pid}.json"


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
