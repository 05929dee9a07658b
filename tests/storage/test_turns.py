"""Turns, on a real Redis, on real files, and between real processes."""

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis

from app.jobs.ports import Turns
from app.storage.file_turns import FileTurns
from app.storage.turns import RedisTurns
from tests.servers import RedisServer

HOLD = """
import sys, pathlib
from app.storage.file_turns import FileTurns
from app.storage.turns import RedisTurns
kind, where, prefix = sys.argv[1:4]
turns = FileTurns(pathlib.Path(where)) if kind == "files" else RedisTurns(where, prefix, lease_s=1)
with turns.turn("a"):
    print("held", flush=True)
    sys.stdin.readline()
"""
COUNT = """
import sys, pathlib
from app.storage.file_turns import FileTurns
from app.storage.turns import RedisTurns
kind, where, prefix, counter = sys.argv[1:5]
turns = FileTurns(pathlib.Path(where)) if kind == "files" else RedisTurns(where, prefix)
for _ in range(20):
    with turns.turn("a"):
        path = pathlib.Path(counter)
        path.write_text(str(int(path.read_text()) + 1))
"""


@pytest.fixture
def prefix(redis_url: str) -> Iterator[str]:
    """A prefix of the test's own, under which nothing may be left."""
    prefix = f"test-{uuid.uuid4().hex}:"
    yield prefix
    with redis.Redis.from_url(redis_url) as client:
        left = list(client.scan_iter(f"*{prefix}*"))
        client.delete(*left) if left else None
    assert not left


@pytest.fixture(params=["redis", "files"])
def where(
    request: pytest.FixtureRequest, redis_url: str, prefix: str, tmp_path: Path
) -> Iterator[tuple[str, str, str]]:
    """The arguments of a process that takes turns; no file may be left of them."""
    folder = tmp_path / "turns"
    yield request.param, redis_url if request.param == "redis" else str(folder), prefix
    assert not folder.exists() or not list(folder.iterdir())


@pytest.fixture
def turns(where: tuple[str, str, str]) -> Iterator[Turns]:
    kind, place, prefix = where
    if kind == "files":
        yield FileTurns(Path(place))
        return
    made = RedisTurns(place, prefix, lease_s=1.0)
    yield made
    made.close()


def holder(*arguments: str) -> "subprocess.Popen[str]":
    """A process that holds the turn `a` until it is told, or dies."""
    command = [sys.executable, "-c", HOLD, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def in_a_thread(work: Callable[[], None]) -> tuple[threading.Thread, threading.Event]:
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, done


def taken(turns: Turns) -> Callable[[], None]:
    def take() -> None:
        with turns.turn("a"):
            pass

    return take


def test_ten_who_wait_all_get_their_turn_one_at_a_time(turns: Turns) -> None:
    inside, most, through = 0, 0, []

    def work(i: int) -> None:
        nonlocal inside, most
        with turns.turn("a"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.002)  # so that a second one inside would be seen
            inside -= 1
            through.append(i)

    with turns.turn("a"):
        threads = [in_a_thread(lambda i=i: work(i))[0] for i in range(10)]
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert sorted(through) == list(range(10))


def test_processes_take_turns(where: tuple[str, str, str], tmp_path: Path) -> None:
    """A counter that each reads and writes back comes out right only if none were in between."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNT, *where, str(counter)]
    with ExitStack() as stack:
        running = [stack.enter_context(subprocess.Popen(command)) for _ in range(3)]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert counter.read_text() == "60"


def test_turns_of_different_names_do_not_wait_for_each_other(turns: Turns) -> None:
    with turns.turn("a"), turns.turn("b"):
        pass


def test_a_turn_is_free_again_after_an_error(turns: Turns) -> None:
    with pytest.raises(ValueError, match="inside"), turns.turn("a"):
        raise ValueError("inside")
    thread, done = in_a_thread(taken(turns))
    assert done.wait(10)
    thread.join()


def test_the_turn_of_a_killed_process_goes_to_the_next(
    turns: Turns, where: tuple[str, str, str]
) -> None:
    with holder(*where) as process:
        thread, done = in_a_thread(taken(turns))
        assert not done.wait(0.2)
        process.send_signal(signal.SIGKILL)
        assert done.wait(10)
        thread.join()


def test_a_turn_that_lasts_longer_than_its_lease_is_kept(redis_url: str, prefix: str) -> None:
    turns = RedisTurns(redis_url, prefix, lease_s=0.3)
    with turns.turn("a"):
        thread, done = in_a_thread(taken(RedisTurns(redis_url, prefix)))
        assert not done.wait(1.2)
    assert done.wait(10)
    thread.join()


def test_who_waits_is_woken_at_once_not_at_the_end_of_the_lease(
    redis_url: str, prefix: str
) -> None:
    turns = RedisTurns(redis_url, prefix, lease_s=60)
    with turns.turn("a"):
        thread, done = in_a_thread(taken(turns))
        assert not done.wait(0.2)
    assert done.wait(10)
    thread.join()


def test_a_key_always_has_an_expiry(redis_url: str, prefix: str) -> None:
    turns = RedisTurns(redis_url, prefix)
    with redis.Redis.from_url(redis_url) as client, turns.turn("a"):
        (key,) = client.scan_iter(f"{prefix}*")
        assert 0 < client.pttl(key) <= 10_000


def test_a_turn_that_lapsed_is_not_taken_away_from_its_next_holder(
    redis_url: str, prefix: str
) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        with RedisTurns(redis_url, prefix).turn("a"):
            client.set(f"{prefix}turn:a", "another's")
        assert client.getdel(f"{prefix}turn:a") == "another's"


def test_whoever_waits_too_long_goes_on_without_the_turn(redis_url: str, prefix: str) -> None:
    patient, impatient = RedisTurns(redis_url, prefix), RedisTurns(redis_url, prefix, patience_s=0)
    with redis.Redis.from_url(redis_url) as client, patient.turn("a"):
        with impatient.turn("a"):
            pass
        assert client.exists(f"{prefix}turn:a")  # the other's turn is still its own


def test_without_redis_the_work_is_done_all_the_same_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns = RedisTurns("redis://127.0.0.1:1/0")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with turns.turn("a"):
                pass
    assert caplog.text.count("working without taking turns") == 1


@pytest.mark.parametrize(("pause_s", "asked"), [(60.0, 1), (0.0, 2)])
def test_a_silent_redis_is_asked_again_only_after_a_pause(pause_s: float, asked: int) -> None:
    """It costs a second each time, and a job has hundreds of modules."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        turns = RedisTurns(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", pause_s=pause_s)
        for _ in range(2):
            with turns.turn("a"):
                pass
        silent.setblocking(False)
        callers = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                callers += 1
    assert callers == asked


def test_a_redis_that_goes_away_lets_those_who_wait_go_on(own_redis: RedisServer) -> None:
    with RedisTurns(own_redis.url).turn("a"):
        thread, done = in_a_thread(taken(RedisTurns(own_redis.url)))
        assert not done.wait(0.2)
        own_redis.stop()
        assert done.wait(20)
        thread.join()


def test_without_a_folder_the_work_is_done_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    turns = FileTurns(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with turns.turn("a"):
                pass
    assert caplog.text.count("working without taking turns") == 1


def test_a_lock_file_that_cannot_be_removed_does_not_fail_the_work(tmp_path: Path) -> None:
    turns = FileTurns(tmp_path)
    with turns.turn("a"):
        (lock,) = tmp_path.iterdir()
        lock.unlink()
        lock.mkdir()


def test_a_wait_that_is_interrupted_leaves_no_file_open(tmp_path: Path) -> None:
    """As Celery's soft time limit does."""

    class TimeIsUp(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with FileTurns(tmp_path).turn("a"):
            opened = len(list(Path("/dev/fd").iterdir()))
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(TimeIsUp), FileTurns(tmp_path).turn("a"):
                pytest.fail("the turn was another's")
            assert len(list(Path("/dev/fd").iterdir())) == opened
    finally:
        signal.signal(signal.SIGALRM, before)
