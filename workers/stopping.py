"""A worker that is told to stop has some time to finish its job, then gives it back.

Celery's parent gets the signal, its child does the work: what they share was made before the fork.
"""

import time
from multiprocessing.sharedctypes import RawValue

_stop_at = RawValue("d", 0.0)  # of the monotonic clock, which processes of one machine share


def begin(grace_s: float) -> None:
    """In the parent: from `grace_s` seconds from now on, jobs are given back."""
    _stop_at.value = time.monotonic() + grace_s


def is_due() -> bool:
    """In the child: whether the job must be given back now."""
    return bool(0 < _stop_at.value <= time.monotonic())
