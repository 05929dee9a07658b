"""A worker's port: /metrics, /healthz, /readyz, from a thread of the parent.

The child counts and the parent shows: the numbers lie in files that both have mapped
(`PROMETHEUS_MULTIPROC_DIR`), so that a child that computes for an hour, hangs or was killed costs
no scrape and no count.
"""

import hmac
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from workers.health import Health, is_alive

logger = logging.getLogger(__name__)

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "adapter_safety_worker_"
CLIENT_TIMEOUT_S = 10.0

Look = Callable[[], Health | None]


def prepare() -> None:
    """A fresh folder for the counts. To be called before `prometheus_client` is imported anywhere,
    because it decides then where numbers lie."""
    os.environ[DIRECTORY] = tempfile.mkdtemp(prefix="adapter-safety-figures-")


class Exporter:
    """Without a token whoever reaches the port sees the figures; they name no tenant and no job."""

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self._address, self._token = (host, port), token
        self._server: ThreadingHTTPServer | None = None

    def start(self, look: Look) -> None:
        """Does not raise: a worker whose port is taken does its jobs all the same."""
        try:
            handler = partial(_Handler, look=look, token=self._token)
            self._server = ThreadingHTTPServer(self._address, handler)
        except OSError as error:
            logger.error("no port for figures at %s:%d: %s", *self._address, error)
            return
        self._server.daemon_threads = True
        serve = self._server.serve_forever
        threading.Thread(target=serve, name="exporter", daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        shutil.rmtree(os.environ[DIRECTORY], ignore_errors=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_S
    server_version, sys_version = "adapter-safety", ""

    def __init__(self, *arguments: object, look: Look, token: str | None) -> None:
        self._look, self._token = look, token
        super().__init__(*arguments)  # type: ignore[arg-type] # as the server gives them

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._metrics()
        elif self.path == "/healthz":
            self._state(is_well=lambda health: health.trouble(time.monotonic()) is None)
        elif self.path == "/readyz":
            self._state(is_well=lambda health: health.is_ready)
        else:
            self._answer(404, "text/plain", b"not found\n")

    def _metrics(self) -> None:
        given = self.headers.get("Authorization", "").encode("latin-1")
        if self._token and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            self._answer(401, "text/plain", b"a token is needed\n")
            return
        from workers.figures import exposition

        self._answer(200, "text/plain; version=0.0.4; charset=utf-8", exposition(self._look()))

    def _state(self, is_well: Callable[[Health], bool]) -> None:
        health = self._look()
        well = health is not None and is_well(health)
        body = {"state": health.state if health else "starting"}
        self._answer(200 if well else 503, "application/json", json.dumps(body).encode())

    def _answer(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Scrapers come for ever."""


def forget_dead_children() -> None:
    """What only a living process can say (its memory) goes with it; what it has counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    for path in _live_files():
        pid = int(path.stem.rpartition("_")[2])
        if not is_alive(pid):
            mark_process_dead(pid)  # type: ignore[no-untyped-call] # because it has no types


def _live_files() -> Iterator[Path]:
    return Path(os.environ[DIRECTORY]).glob("gauge_live*_*.db")
