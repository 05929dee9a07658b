"""Starts a command that cannot outlive the process that asked for it.

    python -m app.supervisor.launch [--parent PID] [--watchdog] -- COMMAND...

On Linux the kernel is asked to kill this process when its parent dies (PR_SET_PDEATHSIG), and the
command is exec'ed in its place: no process more. Elsewhere, or with --watchdog, a small parent
stays, passes signals on, and kills its process group once its own parent is gone.

The signal is SIGKILL, because SIGTERM can be ignored and asks Celery to finish a job for which no
broker is left; a job cut off is delivered again, and the broker loses nothing it has answered.
The request survives exec but not fork: a process forked later calls `die_with_parent()` itself.
It follows the *thread* that started the child, so children are started from the main thread.

Imports are few, because this runs in front of every child.
"""

import os
import signal
import sys

ON_LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 0.2
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
_USAGE = "usage: python -m app.supervisor.launch [--parent PID] [--watchdog] -- COMMAND..."


def die_with_parent(parent: int | None = None, *, watch: bool = not ON_LINUX) -> None:
    """Ties the calling process to its parent: for the child-init hook of a forked worker.

    `parent` is the parent's process id where the caller knows it: then a parent that died before
    this call is noticed too. `watch` looks from a thread, for systems whose kernel cannot tell us.
    """
    expected = os.getppid() if parent is None else parent
    if watch or not _ask_kernel_to_kill_us():
        _watch_from_thread(expected)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def _ask_kernel_to_kill_us() -> bool:
    if not ON_LINUX:
        return False
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return bool(prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)


def _watch_from_thread(parent: int) -> None:
    import threading
    import time

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="die-with-parent", daemon=True).start()


def _exec(command: list[str]) -> None:
    try:
        os.execvp(command[0], command)  # noqa: S606 - because the command is the supervisor's own
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        os._exit(127)


def _guard(command: list[str], parent: int) -> int:
    """Waits for the command; kills the whole group, itself with it, once the parent is gone."""
    # Held back until the handlers stand: else a signal right after the fork would kill only us.
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        _exec(command)
    for number in _PASSED_ON:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)

    def look(_number: int, _frame: object) -> None:
        if os.getppid() != parent:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    # An interval timer, because waitpid then still returns in the moment that the command ends.
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_EVERY_S, _LOOK_EVERY_S)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _parse(arguments: list[str]) -> tuple[int, bool, list[str]]:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = arguments[:split], arguments[split + 1 :]
    if not command:
        raise SystemExit(_USAGE)
    watchdog = "--watchdog" in options
    rest = [option for option in options if option != "--watchdog"]
    if not rest:
        return os.getppid(), watchdog, command
    if len(rest) != 2 or rest[0] != "--parent" or not rest[1].isdigit():
        raise SystemExit(_USAGE)
    return int(rest[1]), watchdog, command


def main(arguments: list[str]) -> int:
    parent, watchdog, command = _parse(arguments)
    guarded = watchdog or not _ask_kernel_to_kill_us()
    if os.getppid() != parent:  # it died before the kernel was asked
        return 1
    if not guarded:
        _exec(command)
    if os.getpgrp() != os.getpid():  # started by hand: never kill a group that others share
        os.setpgid(0, 0)
    return _guard(command, parent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
