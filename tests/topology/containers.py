"""The compose file's services as processes of this machine, by the very commands that it and the
Dockerfiles have.

What is not an engine's: a container's own address and port become free ports of loopback, its
paths folders of the test, its programs those of this environment. PostgreSQL is the tests' server
with a database of its own, S3 is moto.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from tests.deploy.compose import ROOT, dockerfile_of, inherited, read_compose, seconds
from tests.deploy.dockerfile import Stage, read_stages
from tests.faults.processes import kill
from tests.servers import _binary, free_port

PROGRAMS = Path(sys.executable).parent
PATHS = re.compile(r"(?<![\w./:-])/(data|models)\b")


@dataclass
class Container:
    """One of a service: it may be killed, and is started again as it was."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    restart: str
    grace_s: float
    health: Sequence[str] = ()
    port: int = 0  # where it listens, 0: nowhere
    process: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """As when its machine is switched off."""
        kill(self.process)

    def start_again(self) -> None:
        """As its restart policy says."""
        assert self.process.poll() is not None
        assert self.restart == "unless-stopped"
        self.start()

    def is_healthy(self) -> bool:
        """By its own check. Raises AssertionError where it has ended."""
        assert self.process.poll() is None, f"it has ended; see {self.log}"
        return self.run(*self.health).returncode == 0

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """As `docker compose run` and `exec`: in its environment."""
        return subprocess.run(
            _here(command), env=self.environment, cwd=self.folder, capture_output=True, text=True
        )

    def stop(self) -> int:
        """SIGTERM, and the time that the compose file gives it."""
        self.process.terminate()
        return self.process.wait(timeout=self.grace_s)


@dataclass
class Topology:
    """`docker compose --profile s3`, with that `.env`."""

    folder: Path
    model_root: Path
    database_url: str
    s3_url: str
    given: Mapping[str, str]
    started: list[Container] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.services: dict[str, Any] = read_compose(self.given)["services"]
        self.redis_port = free_port()
        for name in ("data", "redis", "logs"):
            (self.folder / name).mkdir(parents=True)

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    def make(self, name: str, number: int = 0) -> Container:
        """One of a service, not started yet."""
        service = self.services[name]
        stage = read_stages(dockerfile_of(service))[-1]
        port = free_port()
        moved = {word: str(port) for word in _ports(stage)} | {"0.0.0.0": "127.0.0.1"}
        container = Container(
            command=_here([moved.get(w, w) for w in service.get("command") or _command(stage)]),
            environment=self._environment(service, stage, moved),
            folder=self.folder / "data",
            log=self.folder / "logs" / f"{name}-{number}.log",
            restart=service["restart"],
            grace_s=seconds(service.get("stop_grace_period", "10s")),
            health=[_moved(word, moved) for word in _health(stage)],
            port=port if _ports(stage) else 0,
        )
        self.started.append(container)
        return container

    def make_redis(self) -> Container:
        service = self.services["redis"]
        program, *options = service["command"]
        assert program == "redis-server"
        own = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", "."]
        container = Container(
            command=[_binary(), *options, *own],
            environment=inherited(),
            folder=self.folder / "redis",
            log=self.folder / "logs" / "redis.log",
            restart=service["restart"],
            grace_s=seconds(service["stop_grace_period"]),
        )
        self.started.append(container)
        return container

    def close(self) -> None:
        for container in self.started:
            if hasattr(container, "process"):
                container.kill()

    def _environment(
        self, service: Mapping[str, Any], stage: Stage, moved: Mapping[str, str]
    ) -> dict[str, str]:
        """The image's, then `.env`, then the service's, as compose has it."""
        image = {k: v for k, v in stage.environment.items() if k not in ("PATH", "HOME")}
        told = {**image, **self.given, **service["environment"]}
        return {
            **inherited(),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            **{name: moved.get(value) or self._moved(value) for name, value in told.items()},
        }

    def _moved(self, value: str) -> str:
        """A value of the file, with the addresses and folders that there are here."""
        if "@postgres/" in value:
            ours, here = make_url(value), make_url(self.database_url)
            assert (ours.drivername, ours.host) == (here.drivername, "postgres")
            return self.database_url
        value = value.replace("//redis:6379", f"//127.0.0.1:{self.redis_port}")
        value = value.replace("http://s3:7070", self.s3_url)
        folders = {"data": self.folder / "data", "models": self.model_root}
        return PATHS.sub(lambda match: str(folders[match[1]]), value)


def _command(stage: Stage) -> list[str]:
    return stage.last("CMD").command


def _health(stage: Stage) -> list[str]:
    return stage.healthcheck if stage.all("HEALTHCHECK") else []


def _ports(stage: Stage) -> list[str]:
    return [step.text for step in stage.all("EXPOSE")]


def _moved(word: str, ports: Mapping[str, str]) -> str:
    for old, new in ports.items():
        word = word.replace(f":{old}/", f":{new}/")
    return word


def _here(command: Sequence[str]) -> list[str]:
    """With this environment's program of that name."""
    program, *rest = command
    found = shutil.which(program, path=f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    assert found, f"there is no {program} here"
    return [found, *rest]
