"""A worker's parent is told to stop; its children, which do the work, have to know."""

import mmap
import struct
import time

DEADLINE = struct.Struct("d")  # on the monotonic clock, which the machine's processes share


class StopSign:
    """Shared memory of a parent and the children that it forks after this was made."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def put_up(self, *, in_s: float) -> None:
        """Once: a second call changes nothing."""
        if not self._deadline():
            DEADLINE.pack_into(self._page, 0, time.monotonic() + in_s)

    def is_up(self) -> bool:
        deadline = self._deadline()
        return 0 < deadline <= time.monotonic()

    def _deadline(self) -> float:
        (deadline,) = DEADLINE.unpack_from(self._page)
        return float(deadline)


stop_sign = StopSign()  # imported, and so made, before the fork
