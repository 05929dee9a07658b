"""Signals as things to wait for: the handlers do nothing, the loop reads what came."""

import select
import signal
import socket
import threading
import time
from types import FrameType, TracebackType

from app.supervisor.errors import SupervisorError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# One Ctrl-C can arrive twice: wrappers such as npm pass on what the terminal sent to all.
_SAME_PRESS_S = 0.3


class Wakeups:
    """While entered, stop signals and ended children wake `wait`; none interrupts other code."""

    def __init__(self) -> None:
        self.stopping = False
        self.hurried = False  # a second Ctrl-C or SIGTERM: kill instead of waiting
        self._stopping_since = 0.0
        self._previous: dict[int, object] = {}
        self._previous_fd = -1

    def __enter__(self) -> "Wakeups":
        if threading.current_thread() is not threading.main_thread():
            raise SupervisorError("The service can only be run from the main thread.")
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, signal.SIGCHLD):
            self._handle(number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as signal() returned it
        signal.set_wakeup_fd(self._previous_fd)
        self._reader.close()
        self._writer.close()

    def _handle(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            return  # nohup asked us to outlive the terminal
        previous = signal.signal(number, _do_nothing)
        self._previous[number] = signal.SIG_DFL if previous is None else previous

    def wait(self, timeout_s: float) -> None:
        """Until a signal comes or the time is over."""
        ready, _, _ = select.select([self._reader], [], [], max(timeout_s, 0))
        for number in self._reader.recv(4096) if ready else b"":
            self._note(number)

    def _note(self, number: int) -> None:
        if number not in STOP_SIGNALS:
            return
        if not self.stopping:
            self.begin_stop()
        elif number != signal.SIGHUP and time.monotonic() - self._stopping_since > _SAME_PRESS_S:
            self.hurried = True  # SIGHUP not, because closing the terminal asks for no hurry

    def begin_stop(self) -> None:
        """From here on a further Ctrl-C asks for hurry, whatever the stop began with."""
        if not self.stopping:
            self.stopping, self._stopping_since = True, time.monotonic()


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Only there so that the signal is written to the wakeup descriptor."""
