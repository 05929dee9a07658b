"""launch.py by itself, as a program; that children die with a killed parent: test_processes.py."""

import os
import signal
import subprocess
import sys

import pytest

from app.supervisor import launch

EITHER = pytest.mark.parametrize("options", [[], ["--watchdog"]], ids=["default", "watchdog"])


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-I", "-S", launch.__file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@EITHER
def test_the_command_runs_and_its_exit_code_is_passed_on(options):
    done = run(*options, "--", "/bin/sh", "-c", "echo hello; exit 7")
    assert (done.stdout, done.returncode) == ("hello\n", 7)


@EITHER
def test_a_command_that_cannot_be_run_is_named(options):
    done = run(*options, "--", "/nowhere/at-all")
    assert done.returncode == 127
    assert "cannot run /nowhere/at-all: No such file" in done.stderr


@EITHER
def test_a_parent_that_died_before_the_start_means_that_nothing_is_started(options):
    someone_else = str(os.getppid())
    done = run("--parent", someone_else, *options, "--", "/bin/echo", "started")
    assert (done.stdout, done.returncode) == ("", 1)


@EITHER
def test_words_after_the_dashes_belong_to_the_command(options):
    done = run("--parent", str(os.getpid()), *options, "--", "/bin/echo", "--watchdog", "--")
    assert done.stdout == "--watchdog --\n"


def test_the_watchdog_passes_signals_on_and_reports_how_the_command_ended():
    own = [sys.executable, "-I", "-S", launch.__file__, "--watchdog", "--"]
    shell = "trap 'echo stopped; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*own, "/bin/sh", "-c", shell], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopped\n"
    assert process.returncode == 5


def test_a_command_killed_by_a_signal_reads_as_a_shell_says_it():
    assert run("--watchdog", "--", "/bin/sh", "-c", "kill -9 $$").returncode == 128 + 9


@pytest.mark.parametrize("arguments", [[], ["--"], ["--parent", "--", "x"], ["--new", "--", "x"]])
def test_other_arguments_are_answered_with_the_usage(arguments):
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: ")


def test_little_is_imported_in_front_of_a_child():
    command = [sys.executable, "-I", "-S", "-X", "importtime", launch.__file__, "--", "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "signal" in imported
    assert not {"subprocess", "typing", "asyncio", "socket", "threading", "re"} & imported
