"""Turns, on a real Redis and between real processes."""

import logging
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
import redis

from app.storage.turns import RedisTurns

HOLDER = """
import sys, time
from app.storage.turns import RedisTurns
with RedisTurns(sys.argv[1], sys.argv[2]).turn("a", held_s=float(sys.argv[3])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def prefix(redis_url: str) -> Iterator[str]:
    prefix = f"test-{uuid.uuid4().hex}:"
    yield prefix
    with redis.Redis.from_url(redis_url) as client:
        left = list(client.scan_iter(f"{prefix}*"))
        client.delete(*left) if left else None
    assert not left


def test_ten_get_their_turns_one_at_a_time(redis_url: str, prefix: str) -> None:
    inside, most, done = 0, 0, []

    def work(i: int) -> None:
        nonlocal inside, most
        with RedisTurns(redis_url, prefix).turn("a"):
            inside += 1
            most = max(most, inside)
            done.append(i)
            time.sleep(0.002)  # so that a second one inside would be seen
            inside -= 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert most == 1
    assert sorted(done) == list(range(10))


def test_turns_of_different_names_do_not_wait_for_each_other(redis_url: str, prefix: str) -> None:
    turns = RedisTurns(redis_url, prefix)
    with turns.turn("a"), turns.turn("b"):
        pass


def test_a_turn_is_free_again_after_an_error(redis_url: str, prefix: str) -> None:
    turns = RedisTurns(redis_url, prefix)
    with pytest.raises(ValueError, match="inside"), turns.turn("a"):
        raise ValueError("inside")
    with turns.turn("a", held_s=1.0):
        pass


def test_the_turn_of_a_killed_process_lapses(redis_url: str, prefix: str) -> None:
    command = [sys.executable, "-c", HOLDER, redis_url, prefix, "1.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        with RedisTurns(redis_url, prefix).turn("a", held_s=30.0):
            pass


def test_whoever_waits_too_long_goes_on_without_the_turn(redis_url: str, prefix: str) -> None:
    turns = RedisTurns(redis_url, prefix)
    began = time.monotonic()
    with turns.turn("a", held_s=30.0), turns.turn("a", held_s=0.2):
        assert time.monotonic() - began < 15
    with turns.turn("a", held_s=0.2):  # the impatient one has not taken the other's turn away
        pass


def test_without_redis_the_work_is_done_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), RedisTurns("redis://127.0.0.1:1/0").turn("a"):
        pass
    assert "working without taking turns" in caplog.text
