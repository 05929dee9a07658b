"""Threads and memory for work on large matrices.

One Python thread drives torch's own threads, block by block. Python threads of our own were slower
with torch at every block size: an operation on a block takes some 30 microseconds, and handing the
interpreter's lock from thread to thread took as long (13.5 ms a module against 5.7, on two cores).
They are worth it where an operation takes longer (`numpy_products`, digests).
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch's operations use `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Scratch:
    """Memory that is used again, by name: touching fresh pages costs a third of a pass. And the
    threads that use it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype], Tensor] = {}
        self._of_threads: dict[int, Scratch] = {}
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def of_thread(self, number: int) -> "Scratch":
        """Memory that is one thread's alone."""
        return self._of_threads.setdefault(number, Scratch())

    def pool(self, threads: int) -> ThreadPoolExecutor:
        """So many threads, which are used again too."""
        if threads not in self._pools:
            self._pools[threads] = ThreadPoolExecutor(threads, "alignment")
        return self._pools[threads]

    def close(self) -> None:
        """End the threads."""
        while self._pools:
            self._pools.popitem()[1].shutdown()

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous CPU tensor with whatever was in it; the next taker of `name` gets it too."""
        size = math.prod(shape)
        flat = self._kept.get((name, dtype))
        if flat is None or flat.numel() < size:
            self._kept.pop((name, dtype), None)  # first, so that both are never there at once
            flat = self._kept[name, dtype] = torch.empty(size, dtype=dtype)
        return flat[:size].view(shape)
