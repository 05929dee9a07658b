"""Time and memory, measured the same way by every benchmark."""

import ctypes
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

MIB = 1 << 20


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def best(work: Callable[[int], object], count: int, rounds: int = 3) -> float:
    """Of one call, over `count` different inputs: the median of the fastest half, which is what
    the machine can do when nothing else disturbs it."""
    found = [seconds(lambda i=i: work(i % count)) for i in range(count * rounds)]
    return median(sorted(found)[: max(1, len(found) // 2)])


def total(work: Callable[[int], object], count: int) -> float:
    """Of one pass over `count` inputs."""
    return seconds(lambda: [work(i) for i in range(count)])


@contextmanager
def peak_anonymous() -> Iterator[list[int]]:
    """The most anonymous memory that the process holds inside the block, sampled; in bytes."""
    peak, ended = [anonymous()], threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], anonymous())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        ended.set()
        sampler.join()


def anonymous() -> int:
    """RssAnon of this process in bytes; mapped files are not in it."""
    return _status("RssAnon")


def _status(field: str) -> int:
    """In bytes, of a field in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def plain_read(pieces: Sequence[tuple[int, int, int]], buffers: Sequence[memoryview]) -> None:
    """(descriptor, begin, end) of files into memory that is there already, one thread each."""

    def read(piece: tuple[int, int, int], view: memoryview) -> None:
        descriptor, offset, end = piece
        view = view[: end - offset]
        while view:
            count = os.preadv(descriptor, [view], offset)
            view, offset = view[count:], offset + count

    readers = [
        threading.Thread(target=read, args=given) for given in zip(pieces, buffers, strict=True)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def resident_peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    """Linux counts ru_maxrss in KiB."""
    return resource.getrusage(who).ru_maxrss / 1024


@contextmanager
def resident_rise() -> Iterator[list[int]]:
    """How far the process's resident memory rises inside the block at most, in bytes, by the
    kernel's own mark. What was freed before is given back first: it would be used again unseen."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS
    rise, before = [0], _status("VmRSS")
    yield rise
    rise[0] = _status("VmHWM") - before
