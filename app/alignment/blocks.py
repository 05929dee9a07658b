"""Threads that stay, each with buffers that are used again.

Starting threads and touching fresh memory for each module cost a third of the whole pass.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch's own operations use `count` threads inside the block.

    Between two of its operations torch's threads wait busily, and take the cores from ours (51 ms
    a module against 32, measured). So it has one, but for the factorisations, which need them all.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class BlockPool:
    """Runs work on runs of rows. Close it when it has more than one thread."""

    def __init__(self, threads: int = 1) -> None:
        self.threads = max(1, threads)
        self._local = threading.local()
        self._executor: ThreadPoolExecutor | None = None
        if self.threads > 1:
            # One core for each thread: torch's own threads would only wait for each other here.
            alone = partial(torch.set_num_threads, 1)
            self._executor = ThreadPoolExecutor(self.threads, "blocks", alone)

    def map(self, work: Callable[[range], T], spans: list[range]) -> list[T]:
        """The results in the order of `spans`."""
        if self._executor is None or len(spans) == 1:
            return [work(span) for span in spans]
        return list(self._executor.map(work, spans))

    def buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """This thread's buffer `name`, `(rows, columns)`, with whatever was in it before."""
        kept: dict[str, Tensor] = self._local.__dict__.setdefault("buffers", {})
        flat = kept.get(name)
        if flat is None or flat.dtype != dtype or flat.numel() < rows * columns:
            flat = kept[name] = torch.empty(rows * columns, dtype=dtype)
        return flat[: rows * columns].view(rows, columns)

    def close(self) -> None:
        if self._executor:
            self._executor.shutdown()
