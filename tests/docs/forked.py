"""`adapter-safety` without the seconds that importing torch takes: a process that has imported
everything, and forks for each command that it is sent.

`python -m tests.docs.forked SOCKET` serves. What is sent there is a command's arguments, folder,
environment and standard streams; what comes back is its exit code. It is the same `main` that the
installed script calls; that it starts by itself is for `tests/cli` to test.
"""

import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

READY = "ready"
ROOT = Path(__file__).parents[2]
SHIM = f"""#!{sys.executable} -IS
import array, json, os, socket, sys
if sys.argv[1:2] == ["up"]:
    os.environ["PYTHONPATH"] = {str(ROOT)!r}
    free = [] if "--port" in sys.argv else ["--port", "0"]
    code = "from app.cli import main; main()"
    os.execv(sys.executable, [sys.executable, "-c", code, *sys.argv[1:], *free])
server = socket.socket(socket.AF_UNIX)
server.connect({{address!r}})
told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
server.sendall(told)
code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


def write_shim(path: Path, address: str) -> None:
    """The script that takes the place of `adapter-safety`. It starts with the standard library
    alone, in a fiftieth of a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SHIM.replace("{address!r}", repr(address)))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def serve(address: str) -> None:
    """Until it is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # because nobody waits for the children here
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print(READY, flush=True)  # noqa: T201 because the tests wait for it; who calls waits a little more
        _import_everything()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os._exit(_command(connection))
            connection.close()


def _import_everything() -> None:
    import peft  # noqa: F401 - loaded before the fork, and used after it
    import torch
    import transformers.trainer  # noqa: F401 - likewise

    import app.cli.measure_here
    import app.cli.patch_here
    import app.cli.salora_here
    import app.demo.world  # noqa: F401 - likewise

    torch.set_num_threads(1)


def _command(connection: socket.socket) -> int:
    """In the child: be that process, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    told = b""
    while len(told) < int.from_bytes(head, "big"):
        told += connection.recv(1 << 16)
    arguments, folder, environment = json.loads(told)
    code = _run(arguments, folder, environment, streams)
    connection.sendall(bytes([code & 0xFF]))
    return code


def _run(
    arguments: Sequence[str], folder: str, environment: dict[str, str], streams: "Sequence[int]"
) -> int:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["adapter-safety", *arguments]
    from app.cli import main

    try:
        main()
    except SystemExit as end:
        return _code(end.code)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _code(value: Any) -> int:
    return value if isinstance(value, int) else int(value is not None)


if __name__ == "__main__":
    serve(sys.argv[1])
