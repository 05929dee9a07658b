"""Threads of our own, for work in large pieces: each computes with one thread of torch's."""

from collections.abc import Callable, Iterator
from concurrent.futures import wait

import torch

from app.alignment.blocks import Scratch, torch_threads

Work = Callable[[int, Iterator[int]], None]
"""Given a thread's number, from 0, and the pieces: takes one after the other until none is left."""


def share(work: Work, pieces: int, scratch: Scratch) -> None:
    """`work` on the numbers below `pieces`, in as many threads as torch has here: the caller's, and
    the scratch memory's. Raises what `work` raises, when none is at work any more."""
    threads, left = torch.get_num_threads(), iter(range(pieces))
    others = min(pieces, threads) - 1
    if others < 1:
        work(0, left)
        return
    pool = scratch.pool(threads - 1)
    with torch_threads(1):  # a thread of the pool takes this over when it first needs torch
        running = [pool.submit(work, 1 + i, left) for i in range(others)]
        try:
            work(0, left)
        finally:
            wait(running)
    for one in running:
        one.result()
