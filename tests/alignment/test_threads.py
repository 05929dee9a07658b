import threading
from collections.abc import Iterator

import pytest
import torch

from app.alignment.blocks import Scratch, torch_threads
from app.alignment.threads import share


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("pieces", [0, 1, 2, 17])
def test_each_piece_is_taken_once(pieces: int, threads: int) -> None:
    taken: list[int] = []

    def work(thread: int, left: Iterator[int]) -> None:
        assert 0 <= thread < threads
        while (piece := next(left, None)) is not None:
            taken.append(piece)

    with torch_threads(threads):
        share(work, pieces, Scratch())
    assert sorted(taken) == list(range(pieces))


def test_the_threads_work_at_the_same_time_and_each_has_one_of_torchs() -> None:
    met, seen, scratch = threading.Barrier(3), [], Scratch()

    def work(thread: int, left: Iterator[int]) -> None:
        met.wait(timeout=30)
        seen.append((thread, torch.get_num_threads()))

    with torch_threads(3):
        share(work, 17, scratch)
        assert torch.get_num_threads() == 3
    assert sorted(seen) == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize("broken", [0, 1])
def test_what_fails_in_one_thread_is_raised_when_the_others_have_ended(broken: int) -> None:
    """They share memory with whatever comes next."""
    failed, ended = threading.Event(), []

    def work(thread: int, left: Iterator[int]) -> None:
        if thread == broken:
            failed.set()
            raise ValueError("a damaged piece")
        assert failed.wait(timeout=30)
        ended.extend(left)

    with torch_threads(2):
        with pytest.raises(ValueError, match="a damaged piece"):
            share(work, 9, Scratch())
        assert ended == list(range(9))
        assert torch.get_num_threads() == 2


def test_the_threads_end_with_the_memory_and_come_again_when_they_are_needed() -> None:
    scratch, met, others = Scratch(), threading.Barrier(2), []

    def work(thread: int, left: Iterator[int]) -> None:
        met.wait(timeout=30)
        if thread:
            others.append(threading.current_thread())

    with torch_threads(2):
        for _ in range(2):
            share(work, 2, scratch)
            assert others[-1].is_alive()
            scratch.close()
            assert not others[-1].is_alive()
    assert len(set(others)) == 2
