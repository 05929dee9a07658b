"""A PostgreSQL of the tests' own, which they may crash and start again."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.conftest import missing

BINARIES = "/usr/lib/postgresql"
UNPRIVILEGED = "postgres"  # because the server refuses to run as root


class PostgresServer:
    """One cluster in a folder of its own; TCP on loopback, everyone trusted."""

    def __init__(self) -> None:
        self._tools = _tools()
        # not tmp_path, which another user may not enter
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, UNPRIVILEGED)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._run("initdb", "-D", "data", "-A", "trust", "-U", "postgres", "-N")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = f"-p {self._port} -h 127.0.0.1 -k {self.folder} -F"
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def crash(self) -> None:
        """Every connection breaks, and the next start recovers from the log."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.crash()
        shutil.rmtree(self.folder)

    def _run(self, tool: str, *arguments: str) -> None:
        subprocess.run(
            [self._tools / tool, *arguments],
            cwd=self.folder,
            user=UNPRIVILEGED if os.geteuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _tools() -> Path:
    """The newest version's."""
    versions = sorted(Path(BINARIES).glob("*/bin"), key=lambda path: float(path.parent.name))
    if not versions:
        missing(f"no PostgreSQL server under {BINARIES} to crash")
    if os.geteuid() == 0 and UNPRIVILEGED not in {user.pw_name for user in pwd.getpwall()}:
        missing(f"root cannot start PostgreSQL, and there is no user {UNPRIVILEGED}")
    return versions[-1]
