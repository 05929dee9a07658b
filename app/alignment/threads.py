"""Threads of our own, for work in large pieces: each computes with one thread of torch's."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

from app.alignment.blocks import torch_threads

Work = Callable[[int, Iterator[int]], None]
"""Given a thread's number, from 0, and the pieces: takes one after the other until none is left."""


def share(work: Work, pieces: int) -> None:
    """`work` on the numbers below `pieces`, in as many threads as torch has here, the caller's
    among them. Raises what `work` raises, when all threads have ended."""
    others, left = min(pieces, torch.get_num_threads()) - 1, iter(range(pieces))
    if others < 1:
        work(0, left)
        return
    with torch_threads(1):  # a thread of the pool takes this over when it first needs torch
        running = [_pool(others).submit(work, 1 + i, left) for i in range(others)]
        try:
            work(0, left)
        finally:
            wait(running)
    for one in running:
        one.result()


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "alignment")
