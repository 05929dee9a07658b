"""How the command line starts and ends."""

import os
import subprocess
import sys

import pytest

from app.cli import COMMANDS

OTHERS = {"app.cli.up", "app.cli.patch", "app.cli.frontier", "app.cli.keys"}


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *arguments]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # so that there is something to flush
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=buffered
    )


@pytest.mark.parametrize("name", ["inspect", "patch"])
def test_a_command_imports_no_other_command(name: str) -> None:
    code = (
        "import atexit, sys; from app.cli import main\n"
        f"atexit.register(lambda: print(*sorted({OTHERS} & set(sys.modules))))\n"
        "main()"
    )
    done = run(code, name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == [f"app.cli.{name}"] * (name == "patch")


def test_a_wrong_command_is_told_which_there_are() -> None:
    done = run("from app.cli import main; main()", "pacth")
    assert done.returncode == 2
    assert "'patch'" in done.stderr


def test_the_commands_are_named_once() -> None:
    assert len(set(COMMANDS)) == len(COMMANDS)


LEAVE = """
import atexit, sys, threading
import torch
from app.cli.leaving import leave

class Witness:
    def __del__(self):
        print("taken apart", flush=True)

witness = Witness()
atexit.register(lambda: print("at the end"))
print("said")
"""


def test_with_torch_imported_a_process_ends_with_its_status_and_without_taking_itself_apart() -> (
    None
):
    done = run(LEAVE + "leave(3); print('never')")
    assert (done.returncode, done.stdout.split("\n")) == (3, ["said", "at the end", ""])


@pytest.mark.parametrize(
    "more",
    [
        "leave(None)",
        "leave('a message')",
        "go = threading.Event(); threading.Thread(target=go.wait).start(); leave(3); go.set()",
        "del sys.modules['torch']; leave(3)",
    ],
)
def test_a_process_with_more_to_do_goes_on(more: str) -> None:
    done = run(f"{LEAVE}{more}\nprint('goes on')")
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["said", "goes on"])
    assert "at the end" in done.stdout
    assert "taken apart" in done.stdout


def test_an_output_that_nobody_reads_any_more_is_no_success() -> None:
    code = f"{LEAVE}import os; read, write = os.pipe(); os.dup2(write, 1); os.close(write)\n"
    done = run(code + "os.close(read); leave(0)")
    assert done.returncode != 0
