"""What a worker's parent makes of its child's signs."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.health import (
    Health,
    SignsOfLife,
    Watcher,
    forget_health,
    forget_the_dead,
    read_healths,
    write_health,
)

SILENT_S = 10.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Signs(SignsOfLife):
    """By the test's own clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.at = clock, 0.0

    def sign(self) -> None:
        self.at = self.clock()

    def last(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watcher(clock: Clock) -> Watcher:
    return Watcher(SILENT_S, Signs(clock), clock)


def state(watcher: Watcher, *, broker_answers: bool = True) -> str:
    return watcher.look(broker_answers=broker_answers).state


def test_a_child_is_starting_until_it_signs_and_silent_where_it_never_does(
    watcher: Watcher, clock: Clock
) -> None:
    assert state(watcher) == "starting"
    clock.now += SILENT_S + 1
    assert state(watcher) == "silent"
    watcher.signs.sign()
    assert state(watcher) == "ready"


def test_a_child_that_signs_no_more_is_silent_and_ready_when_it_goes_on(
    watcher: Watcher, clock: Clock
) -> None:
    watcher.signs.sign()
    clock.now += SILENT_S
    assert state(watcher) == "ready"
    clock.now += 1
    assert state(watcher) == "silent"
    watcher.signs.sign()
    assert state(watcher) == "ready"


def test_silence_while_nobody_could_be_asked_does_not_count(watcher: Watcher, clock: Clock) -> None:
    watcher.signs.sign()
    assert state(watcher, broker_answers=False) == "no broker"
    clock.now += 5 * SILENT_S
    assert state(watcher, broker_answers=False) == "no broker"
    clock.now += 1
    assert state(watcher) == "starting"  # the canary that it was just sent is under way
    clock.now += SILENT_S + 1
    assert state(watcher) == "silent"


def test_only_what_a_restart_may_mend_is_trouble(clock: Clock) -> None:
    def trouble(state: str, seen_ago: float = 0.0) -> str | None:
        health = Health(state, 7, clock() - seen_ago, clock() - 60, SILENT_S)  # type: ignore[arg-type] # a word
        return health.trouble(clock())

    assert [trouble(state) for state in ("ready", "starting", "no broker")] == [None] * 3
    assert trouble("silent") == "the child of worker 7 has shown no work for 60 s"
    assert trouble("ready", SILENT_S + 1) == "worker 7 has not looked after itself for 11 s"


def test_a_sign_of_a_forked_child_is_seen_by_its_parent() -> None:
    signs = SignsOfLife()
    assert signs.last() == 0
    child = os.fork()
    if child == 0:
        signs.sign()
        os._exit(0)
    os.waitpid(child, 0)
    assert signs.last() > 0


# -------------------------------------------------------------------------------------------- files
def health_of(pid: int) -> Health:
    return Health("ready", pid, 1.0, 1.0, SILENT_S)


def test_a_health_check_reads_what_the_workers_of_this_machine_wrote(tmp_path: Path) -> None:
    own, parent = health_of(os.getpid()), health_of(os.getppid())
    for health in (own, parent):
        write_health(tmp_path, health)
    (tmp_path / f"{socket.gethostname()}-1.json").write_text("{half")
    (tmp_path / "elsewhere-1.json").write_text("{}")
    assert {health.pid for health in read_healths(tmp_path)} == {own.pid, parent.pid}
    forget_health(tmp_path)
    assert list(read_healths(tmp_path)) == [parent]


def test_what_a_worker_wrote_before_the_machine_started_again_is_nothings(tmp_path: Path) -> None:
    """In a container the next one has its process id, and the clock has begun anew."""
    later = time.monotonic() + 3600
    write_health(tmp_path, Health("ready", os.getpid(), later, later, SILENT_S))
    assert list(read_healths(tmp_path)) == []


def test_files_of_the_dead_and_of_machines_that_are_long_gone_go(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_health(tmp_path, health_of(ended.pid))
    write_health(tmp_path, health_of(os.getpid()))
    for name, age_s in (("new-host-1", 0), ("old-host-1", 2 * 24 * 3600)):
        path = tmp_path / f"{name}.json"
        path.write_text("{}")
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    assert [health.pid for health in read_healths(tmp_path)] == [os.getpid()]
    forget_the_dead(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{socket.gethostname()}-{os.getpid()}.json", "new-host-1.json"}
