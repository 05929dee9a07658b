"""Real processes with real signals; each is marked, so that a test sees all that it left behind."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SCRIPTS = Path(__file__).with_name("scripts")
ROOT = Path(__file__).parents[2]
MARK = "SUPERVISOR_TEST_MARK"
PATIENCE_S = 20.0  # generous, because the machine may be busy; nothing waits for it to pass


def until(condition: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """For what the system tells nobody: looks until it is so."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)
    return found


class Driver:
    """A supervisor in a process of its own, and what it printed."""

    def __init__(self, script: str, spec: dict[str, Any], environment: dict[str, str]) -> None:
        self.folder = Path(spec["folder"])
        self.events_file = self.folder / "events"
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), json.dumps(spec)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.output:
            assert self._read(deadline), f"ended without {text!r}:\n{self.output}"

    def _read(self, deadline: float) -> bool:
        pipe = self.process.stdout.fileno()
        ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"nothing more came:\n{self.output}"
        chunk = os.read(pipe, 65536)
        self.output += chunk.decode()
        return bool(chunk)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def press_ctrl_c(self) -> None:
        """As a terminal does it: to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def finish(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE_S)

    def events(self) -> list[str]:
        """What the stand-ins wrote down, without process ids."""
        return [line.rpartition(" ")[0] for line in self.events_file.read_text().splitlines()]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Marked:
    """The processes with this test's mark in their environment, or at home in its folder.

    The second, because a broker writes its title over the environment; its folder is its own.
    """

    def __init__(self, folder: Path) -> None:
        self.value = uuid.uuid4().hex
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), MARK: self.value}

    def alive(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if process.environ().get(MARK) == self.value:
                return True
            return Path(process.cwd()).is_relative_to(self.folder)
        except psutil.Error:
            return False


@pytest.fixture
def marked(tmp_path: Path) -> Iterator[Marked]:
    mark = Marked(tmp_path)
    yield mark
    for process in mark.alive():
        process.kill()


@pytest.fixture
def supervise(tmp_path: Path, marked: Marked) -> Iterator[Callable[..., Driver]]:
    """Starts a Supervisor over stand-ins: pairs of a name and a manner."""
    drivers = []

    def start(*children: tuple[str, str], **options: Any) -> Driver:
        defaults = {
            "folder": str(tmp_path),
            "children": children,
            "probe": True,
            "watchdog": False,
            "verbose": False,
            "grace_s": 10,
            "ready_within_s": 10,
        }
        drivers.append(Driver("run_children.py", defaults | options, marked.environment))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


@pytest.fixture
def up(tmp_path: Path, marked: Marked) -> Iterator[Callable[..., Driver]]:
    """Starts the whole service, with stand-ins for the worker and the API."""
    drivers = []

    def start(environment: dict[str, str] | None = None, **options: Any) -> Driver:
        stand_in = [str(SCRIPTS / "stand_in.py"), str(tmp_path / "events"), "worker", "family"]
        defaults = {
            "folder": str(tmp_path),
            "host": "127.0.0.1",
            "port": 0,
            "redis_url": None,
            "api": [sys.executable, str(SCRIPTS / "stand_in_api.py"), "FD"],
            "worker": [sys.executable, *stand_in],
        }
        everything = {**marked.environment, **(environment or {})}
        drivers.append(Driver("run_up.py", defaults | options, everything))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    return until
