"""The whole corpus through the gate, in a process that never sees torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LEAST_FILES = 480
MOST_CPU_S = 2  # of the process itself, on the machine of docs/fuzzing.md
MOST_MIB = 200


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.corpus"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,  # stderr has one line for who reads along, with -s
        text=True,
        timeout=240,
        check=True,
    )
    return json.loads(done.stdout)


def test_nothing_is_accepted_and_nothing_breaks(told: dict[str, Any]) -> None:
    assert told["files"] >= LEAST_FILES
    assert told["accepted"] == 0
    assert told["crashes"] == []


def test_the_worst_takes_little_time_and_memory(told: dict[str, Any]) -> None:
    assert told["slowest"]["cpu_s"] < MOST_CPU_S * told["machine"], told["slowest"]
    assert told["largest"]["mib"] < MOST_MIB, told["largest"]


def test_the_gate_needs_no_torch(told: dict[str, Any]) -> None:
    assert told["torch"] is False
