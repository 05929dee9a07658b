"""Starts children in order, keeps them up, stops them in reverse order; none is left behind."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from app.supervisor import launch
from app.supervisor.child import Child, Process
from app.supervisor.errors import ChildFailed
from app.supervisor.logs import Log
from app.supervisor.wakeups import Wakeups

EXIT_STOPPED = 0
EXIT_HURRIED = 130  # 128 + SIGINT, as a shell says of a program ended by Ctrl-C
_PROBE_EVERY_S = 0.1
_SHOW_EVERY_S = 0.2
_LOOK_EVERY_S = 5.0  # children wake us when they end; this is only for a lost wake-up


@dataclass(frozen=True)
class Backoff:
    """When a child that ended is started again, and when that is given up."""

    first_s: float = 0.5
    most_s: float = 30.0
    quick_s: float = 10.0  # a child that ends before this failed quickly
    give_up_after: int = 5  # quick failures in a row

    def delay_s(self, failures: int) -> float:
        return float(min(self.first_s * 2 ** (failures - 1), self.most_s))


class _Slot:
    """The place of one child: at most one process at a time."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.log = Log(child.log)
        self.process: Process | None = None
        self.failures = 0  # in a row
        self.due_at = 0.0  # on the monotonic clock

    def failed(self, what: str) -> ChildFailed:
        return ChildFailed(self.child.name, what, self.log.path, self.log.tail())


class Supervisor:
    """Runs the children until a stop signal. Use it once, from the main thread.

    The main thread, because signals arrive there and because the kernel's promise to kill a child
    with its parent follows the thread that started it.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        tell: Callable[[str], None],
        backoff: Backoff | None = None,
        verbose: bool = False,
        watchdog: bool = not launch.ON_LINUX,
    ) -> None:
        self._slots = [_Slot(child) for child in children]
        self._say = tell
        self._backoff = backoff or Backoff()
        self._verbose = verbose
        self._watchdog = watchdog
        self._wakeups = Wakeups()

    def run(self, on_ready: Callable[[], None]) -> int:
        """Returns EXIT_STOPPED or EXIT_HURRIED; ChildFailed when a child cannot be kept up."""
        with self._wakeups:
            try:
                self._start_all()
                if not self._wakeups.stopping:
                    on_ready()
                while not self._wakeups.stopping:
                    self._turn()
            finally:
                self._stop_all()
        return EXIT_HURRIED if self._wakeups.hurried else EXIT_STOPPED

    # Starting

    def _start_all(self) -> None:
        for slot in self._slots:
            if self._wakeups.stopping:
                return
            self._start(slot)
            self._await_ready(slot)

    def _start(self, slot: _Slot) -> None:
        slot.process = Process(slot.child, slot.log, watchdog=self._watchdog)

    def _await_ready(self, slot: _Slot) -> None:
        deadline = time.monotonic() + slot.child.ready_within_s
        while not self._wakeups.stopping and slot.child.probe:
            if slot.process is None or slot.process.has_exited():
                raise slot.failed(f"ended before it was ready ({self._reap(slot)})")
            if (missing := slot.child.probe()) is None:
                return
            if time.monotonic() > deadline:
                within = f"{slot.child.ready_within_s:g} s"
                raise slot.failed(f"was not ready within {within}: {missing}")
            self._turn(_PROBE_EVERY_S, awaited=slot)

    # Watching

    def _turn(self, most_s: float = _LOOK_EVERY_S, awaited: _Slot | None = None) -> None:
        """Waits for something to happen, then sees to every child but the awaited one."""
        self._wakeups.wait(min(most_s, self._until_next_start_s()))
        self._show_logs()
        for slot in self._slots:
            if slot is not awaited and not self._wakeups.stopping:
                self._tend(slot)

    def _until_next_start_s(self) -> float:
        due = [slot.due_at for slot in self._slots if slot.process is None and slot.due_at]
        shown = _SHOW_EVERY_S if self._verbose else _LOOK_EVERY_S
        return min([shown, *(at - time.monotonic() for at in due)])

    def _tend(self, slot: _Slot) -> None:
        if slot.process and slot.process.has_exited():
            self._plan_restart(slot, slot.process.started_at)
        elif slot.process is None and slot.due_at and time.monotonic() >= slot.due_at:
            self._start(slot)

    def _plan_restart(self, slot: _Slot, started_at: float) -> None:
        quick = time.monotonic() - started_at < self._backoff.quick_s
        ending = self._reap(slot)
        slot.failures = slot.failures + 1 if quick else 1
        if slot.failures >= self._backoff.give_up_after:
            raise slot.failed(f"ended {slot.failures} times in a row ({ending})")
        delay_s = self._backoff.delay_s(slot.failures)
        slot.due_at = time.monotonic() + delay_s
        self._tell(f"The {slot.child.name} ended ({ending}); starting it again in {delay_s:g} s.")

    def _reap(self, slot: _Slot) -> str:
        """Ends what is left of the child's group."""
        process, slot.process = slot.process, None
        return process.kill() if process else "not running"

    # Stopping

    def _stop_all(self) -> None:
        self._wakeups.begin_stop()
        try:
            for slot in reversed(self._slots):
                self._stop(slot)
        finally:  # whatever was raised above, no process stays
            for slot in reversed(self._slots):
                self._reap(slot)

    def _stop(self, slot: _Slot) -> None:
        if slot.process and not self._wakeups.hurried:
            slot.process.ask_to_stop()
            self._await_end(slot, slot.process)
        self._show_logs()
        self._reap(slot)
        slot.due_at = 0.0
        if slot.child.on_stopped:
            slot.child.on_stopped()

    def _await_end(self, slot: _Slot, process: Process) -> None:
        grace_s = slot.child.grace_s
        self._tell(f"Stopping the {slot.child.name} (at most {grace_s:g} s; Ctrl-C: at once).")
        deadline = time.monotonic() + grace_s
        while not process.has_exited() and not self._wakeups.hurried:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return self._tell(f"The {slot.child.name} did not stop in time and is killed.")
            self._wakeups.wait(min(left_s, _SHOW_EVERY_S if self._verbose else _LOOK_EVERY_S))
            self._show_logs()
        return None

    # Telling

    def _show_logs(self) -> None:
        for slot in self._slots if self._verbose else []:
            for line in slot.log.new_lines():
                self._tell(f"{slot.child.name:>6} | {line}")

    def _tell(self, text: str) -> None:
        with suppress(OSError):  # because a terminal that is gone must not keep children alive
            self._say(text)
