"""Questions that tell whether a child is ready: None when it is, else why not yet."""

import http.client
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

Probe = Callable[[], str | None]

_ANSWER_WITHIN_S = 1.0  # short, because a stop signal waits for the running question
_EXCERPT_BYTES = 200


def http_ok(host: str, port: int, path: str = "/readyz") -> Probe:
    """Ready when GET answers 200."""
    return partial(_get, host, port, path)


def redis_pong(path: Path) -> Probe:
    """Ready when the broker on this unix socket answers PING; one that still loads does not."""
    return partial(_ping, path)


def _get(host: str, port: int, path: str) -> str | None:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_WITHIN_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(_EXCERPT_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"GET {path} got no answer ({error})"
    finally:
        connection.close()
    return None if answer.status == http.client.OK else f"GET {path}: {answer.status} {body}"


def _ping(path: Path) -> str | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_WITHIN_S)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            answer = connection.recv(_EXCERPT_BYTES)
        except OSError as error:
            return f"no answer on its socket ({error})"
    return None if answer.startswith(b"+PONG") else answer.decode("utf-8", "replace").strip()
