"""Supervisor with real children, real signals and nothing patched."""

import os
import signal
import time

import pytest

from app.supervisor import launch
from app.supervisor.errors import SupervisorError
from app.supervisor.processes import Backoff, Supervisor

WAYS = [
    pytest.param(
        False,
        id="kernel",
        marks=pytest.mark.skipif(not launch.ON_LINUX, reason="only Linux has PR_SET_PDEATHSIG"),
    ),
    pytest.param(True, id="watchdog"),
]


@pytest.mark.parametrize("watchdog", WAYS)
def test_one_interrupt_stops_all_children_in_reverse_order(supervise, marked, watchdog):
    run = supervise(("one", "steady"), ("two", "steady"), ("three", "steady"), watchdog=watchdog)
    run.wait_for("READY")
    run.press_ctrl_c()
    assert run.finish() == 0
    assert run.events() == [
        *("one started", "two started", "three started"),
        *("three stopped", "two stopped", "one stopped"),
    ]
    assert marked.alive() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_a_closed_terminal_stop_the_run_too(supervise, marked, number):
    run = supervise(("one", "steady"))
    run.wait_for("READY")
    run.send(number)
    assert run.finish() == 0
    assert run.events() == ["one started", "one stopped"]
    assert marked.alive() == []


@pytest.mark.parametrize("watchdog", WAYS)
def test_a_killed_parent_leaves_no_child_behind(supervise, marked, until, watchdog):
    run = supervise(("one", "stubborn"), ("two", "family"), ("three", "steady"), watchdog=watchdog)
    run.wait_for("READY")
    assert len(marked.alive()) == (8 if watchdog else 5)  # the run, three children, one grandchild
    run.process.kill()
    until(lambda: not marked.alive())


@pytest.mark.parametrize("watchdog", WAYS)
def test_a_stubborn_child_is_killed_after_its_grace(supervise, marked, watchdog):
    run = supervise(("one", "steady"), ("two", "stubborn"), watchdog=watchdog, grace_s=0.3)
    run.wait_for("READY")
    run.send(signal.SIGINT)
    assert run.finish() == 0
    assert "The two did not stop in time and is killed." in run.output
    assert run.events()[-1] == "one stopped"
    assert marked.alive() == []


def test_a_second_interrupt_kills_at_once(supervise, marked):
    run = supervise(("one", "stubborn"), ("two", "stubborn"), grace_s=300)
    run.wait_for("READY")
    run.send(signal.SIGINT)
    run.wait_for("Stopping the two")

    time.sleep(0.4)  # because the rule is about time: within 0.3 s it counts as the same press
    run.send(signal.SIGINT)
    assert run.finish() == 130
    assert marked.alive() == []


def test_one_interrupt_that_arrives_twice_is_not_taken_for_hurry(supervise):
    run = supervise(("one", "steady"), ("two", "steady"))
    run.wait_for("READY")
    os.kill(run.process.pid, signal.SIGINT)
    os.kill(run.process.pid, signal.SIGINT)
    assert run.finish() == 0
    assert run.events()[-2:] == ["two stopped", "one stopped"]


def test_a_child_that_dies_is_started_again(supervise, until):
    run = supervise(("one", "steady"), ("two", "steady"))
    run.wait_for("READY")
    line = next(line for line in run.events_file.read_text().splitlines() if "two" in line)
    os.kill(int(line.split()[-1]), signal.SIGKILL)
    until(lambda: run.events().count("two started") == 2)
    run.send(signal.SIGINT)
    assert run.finish() == 0
    assert "The two ended (killed by signal 9); starting it again in 0.05 s." in run.output
    assert run.events()[-2:] == ["two stopped", "one stopped"]


def test_what_a_dead_child_left_in_its_group_ends_before_the_restart(supervise, marked, until):
    run = supervise(("one", "wild"))
    run.wait_for("READY")
    until(lambda: "one grandchild" in run.events())
    lines = [line.split() for line in run.events_file.read_text().splitlines()]
    pids = {what: int(pid) for _, what, pid in lines}
    os.kill(pids["started"], signal.SIGKILL)
    run.wait_for("The one ended")
    until(lambda: pids["grandchild"] not in {process.pid for process in marked.alive()})
    until(lambda: run.events().count("one started") == 2)
    run.send(signal.SIGINT)
    assert run.finish() == 0
    until(lambda: not marked.alive())


def test_a_child_that_keeps_dying_ends_the_run_with_its_log(supervise, marked):
    run = supervise(("one", "steady"), ("two", "brief"), probe=False)
    assert run.finish() == 1
    assert "FAILED The two ended 3 times in a row (exit code 3)." in run.output
    assert "two says hello" in run.output.partition("FAILED")[2]
    assert run.events().count("two started") == 3
    assert run.events()[-1] == "one stopped"
    assert marked.alive() == []


def test_a_child_that_ends_before_it_is_ready_ends_the_run_with_its_log(supervise, marked):
    run = supervise(("unready", "brief"))
    assert run.finish() == 1
    assert "FAILED The unready ended before it was ready (exit code 3)." in run.output
    assert "unready says hello" in run.output
    assert "READY" not in run.output
    assert marked.alive() == []


def test_a_child_that_is_not_ready_in_time_ends_the_run_and_says_what_is_missing(supervise, marked):
    run = supervise(("one", "steady"), ("unready", "steady"), ready_within_s=0.6)
    assert run.finish() == 1
    assert "FAILED The unready was not ready within 0.6 s: it never is." in run.output
    assert run.events()[-1] == "one stopped"
    assert marked.alive() == []


def test_an_interrupt_while_a_child_starts_stops_what_was_started(supervise, marked, until):
    run = supervise(("one", "steady"), ("unready", "steady"), ("three", "steady"))
    until(lambda: run.events_file.exists() and "unready started" in run.events())
    run.send(signal.SIGINT)
    assert run.finish() == 0
    assert run.events()[2:] == ["unready stopped", "one stopped"]
    assert "READY" not in run.output
    assert marked.alive() == []


def test_verbose_shows_what_children_say(supervise):
    run = supervise(("one", "steady"), verbose=True)
    run.wait_for("   one | one says hello")
    run.send(signal.SIGINT)
    assert run.finish() == 0


def test_a_terminal_that_is_gone_does_not_keep_children_alive(supervise, marked):
    run = supervise(("one", "steady"))
    run.wait_for("READY")
    run.process.stdout.close()
    run.send(signal.SIGHUP)
    run.process.wait(20)
    assert run.events() == ["one started", "one stopped"]
    assert marked.alive() == []


def test_the_delay_doubles_up_to_its_cap():
    delays = [Backoff().delay_s(failures) for failures in range(1, 9)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_run_outside_the_main_thread_is_refused():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(Supervisor([], tell=lambda _: None).run, lambda: None)
    with pytest.raises(SupervisorError, match="main thread"):
        outcome.result()
