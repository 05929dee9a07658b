"""What a child is, and one running process of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.supervisor import launch
from app.supervisor.errors import ChildFailed
from app.supervisor.logs import Log
from app.supervisor.probes import Probe

_DIES_WITHIN_S = 5.0  # after SIGKILL; longer means that it hangs in the kernel


@dataclass(frozen=True)
class Child:
    """A part of the service: how it is started, known to be ready, and stopped."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    probe: Probe | None = None
    ready_within_s: float = 30.0
    grace_s: float = 10.0  # from SIGTERM to SIGKILL
    pass_fds: tuple[int, ...] = ()
    on_stopped: Callable[[], None] | None = None  # once, when it will not be started again


class Process:
    """One start of a child, in a session of its own: the terminal's Ctrl-C does not reach it."""

    def __init__(self, child: Child, log: Log, *, watchdog: bool) -> None:
        output = log.open_for_child(child.name)
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - because the commands are the service's own
                [*_launcher(watchdog), *child.command],
                env=dict(child.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=child.pass_fds,
                start_new_session=True,
            )
        except OSError as error:
            raise ChildFailed(child.name, f"could not be started ({error})", log.path, "") from (
                error
            )
        finally:
            os.close(output)
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def has_exited(self) -> bool:
        """Looks without reaping: until `kill`, the process id and its group stay ours."""
        if self._popen.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._popen.poll() is not None
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, how) is not None

    def ask_to_stop(self) -> None:
        """SIGTERM to the first process only: Celery's own children must finish their job."""
        if not self.has_exited():
            self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> str:
        """SIGKILL to all that is left of the group, then reaps; says how the process ended."""
        with suppress(
            ProcessLookupError, PermissionError
        ):  # macOS: EPERM when only a zombie is left
            os.killpg(self.pid, signal.SIGKILL)
        try:
            return _in_words(self._popen.wait(_DIES_WITHIN_S))
        except subprocess.TimeoutExpired:
            return f"does not die (process {self.pid})"


def _launcher(watchdog: bool) -> list[str]:
    """By file, isolated and without site: it starts in any folder, in a few milliseconds."""
    options = ["--watchdog"] if watchdog else []
    own = ["--parent", str(os.getpid())]
    return [sys.executable, "-I", "-S", launch.__file__, *own, *options, "--"]


def _in_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
