"""The end of a command's process."""

import atexit
import contextlib
import os
import sys
import threading


def leave(status: object) -> None:
    """End the process at once, where it has imported torch: taking its modules apart, which only
    gives memory back, takes 0.12 s. (mypy ends so too, for the same reason.)

    Returns where there is more to do: other threads to wait for, a message instead of a status, or
    an output that nobody reads any more.
    """
    if "torch" not in sys.modules or threading.active_count() > 1 or not isinstance(status, int):
        return
    with contextlib.suppress(OSError):
        atexit._run_exitfuncs()  # log handlers, temporary folders
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
