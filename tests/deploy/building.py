"""An image without a container engine: its Dockerfile's steps, run as they stand in a folder.

What is not an engine's is said here: absolute paths of the image lie under one folder, the base
image is this machine with its Python, and a container is a process that can write to the data
folder and /tmp alone (its files are read-only, and it has no capabilities).
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.compose import inherited
from tests.deploy.dockerfile import ROOT, Stage, Step, read_stages
from tests.servers import free_port

OURS = re.compile(r"(?<![\w./-])/(opt|src|data|models)\b")
NOT_OURS = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
PORT = 8000  # that the API's image listens on, and its health check asks
ADDING_USERS = """\
#!{python}
import os, shutil, subprocess, sys
root, tool = {root!r}, "/usr/sbin/" + os.path.basename(sys.argv[0])
words = [word.replace(root, "", 1) for word in sys.argv[1:]]
if os.geteuid() == 0 and os.path.exists(tool):
    sys.exit(subprocess.call([tool, "--prefix", root, *words]))
if "--home-dir" in words:
    os.mkdir(root + words[words.index("--home-dir") + 1])
"""


@dataclass
class Image:
    """The last stage's files and what it says of a container."""

    root: Path
    stage: Stage
    environment: Mapping[str, str]

    def inside(self, text: str) -> str:
        """A path or a line of the image, as it is called here."""
        return OURS.sub(lambda match: f"{self.root}{match[0]}", text)

    def lock(self) -> None:
        """As `read_only: true` has it, but for the data volume."""
        data = self.root / "data"
        for path in [self.root, *self.root.rglob("*")]:
            if not path.is_symlink() and path != data and data not in path.parents:
                path.chmod(path.stat().st_mode & 0o555)
        os.chown(data, os.geteuid(), os.getegid())

    def run(self, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self._confined(list(command)),
            env={**self.environment, **settings},
            cwd=self.root / "data",
            capture_output=True,
            text=True,
            timeout=120,
        )

    @contextmanager
    def started(self, log: Path, **settings: str) -> "Iterator[Container]":
        port = free_port()
        command = [word.replace(str(PORT), str(port)) for word in self.stage.last("CMD").command]
        with log.open("wb") as out:
            process = subprocess.Popen(
                self._confined(command),
                env={**self.environment, **settings},
                cwd=self.root / "data",
                stdout=out,
                stderr=out,
            )
        container = Container(self, process, port, settings)
        try:
            yield container
        finally:
            process.kill()
            process.wait()

    def _confined(self, command: list[str]) -> list[str]:
        program = shutil.which(command[0], path=self.environment["PATH"])
        assert program, f"{command[0]} is not in the image"
        if os.geteuid() != 0:
            return [program, *command[1:]]
        none = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        return ["setpriv", *none, program, *command[1:]]


@dataclass
class Container:
    image: Image
    process: "subprocess.Popen[bytes]"
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_healthy(self) -> bool:
        """By the image's own check."""
        check = [word.replace(str(PORT), str(self.port)) for word in self.image.stage.healthcheck]
        return self.image.run(*check, **self.settings).returncode == 0

    def await_health(self, within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not self.is_healthy():
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, "it is not healthy"

    def stop(self, within_s: float) -> int:
        """At SIGTERM, as an engine stops it."""
        self.process.terminate()
        return self.process.wait(timeout=within_s)


def build(path: Path, folder: Path, **environment: str) -> Image:
    """Run every step. `environment` is the builder's, beside what this process has."""
    root, tools = folder / "root", folder / "tools"
    tools.mkdir(parents=True)
    done: dict[str, Path] = {}
    for stage in read_stages(path):
        builder = _Builder(root, done, _environment(root, tools, environment))
        for step in stage.steps:
            builder.do(step)
        last = Image(root, stage, builder.environment)
        if stage.name:  # out of the way: the next stage's files are called the same
            done[stage.name] = root.rename(folder / stage.name)
    return last


@dataclass
class _Builder:
    root: Path
    done: Mapping[str, Path]  # stages by name
    environment: dict[str, str]

    def __post_init__(self) -> None:
        (self.root / "etc").mkdir(parents=True)
        (self.root / "opt").mkdir()
        for name in ("passwd", "group", "shadow", "gshadow"):
            (self.root / "etc" / name).touch()
        self.folder = self.root

    def do(self, step: Step) -> None:
        act = {"RUN": self._run, "COPY": self._copy, "WORKDIR": self._enter, "ENV": self._set}
        act.get(step.keyword, lambda _: None)(step)

    def _run(self, step: Step) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", self._inside(step.text)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{step.text}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"

    def _copy(self, step: Step) -> None:
        context = self.done[step.flags["from"]] if "from" in step.flags else ROOT
        *sources, target = step.words
        to = self.folder / self._inside(target)
        for source in sources:
            found = context / source.lstrip("/")
            if found.is_dir():
                ignored = None if "from" in step.flags else shutil.ignore_patterns("__pycache__")
                shutil.copytree(found, to, ignore=ignored, symlinks=True)
            else:
                place = to / found.name if target.endswith("/") else to
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, place)

    def _enter(self, step: Step) -> None:
        self.folder = Path(self._inside(step.text))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _set(self, step: Step) -> None:
        for word in step.words:
            name, _, value = word.partition("=")
            self.environment[name] = self._inside(value).replace("$PATH", self.environment["PATH"])

    def _inside(self, text: str) -> str:
        return OURS.sub(lambda match: f"{self.root}{match[0]}", text)


def _environment(root: Path, tools: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Of a fresh base image: Python as `python`, and users that are added to the image alone."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (tools / "python").unlink(missing_ok=True)
    (tools / "python").symlink_to(base)
    for name in ("groupadd", "useradd"):
        (tools / name).write_text(ADDING_USERS.format(python=base, root=str(root)))
        (tools / name).chmod(0o755)
    kept = {k: v for k, v in inherited().items() if k not in NOT_OURS}
    return {**kept, **given, "PATH": f"{tools}{os.pathsep}{os.defpath}"}
