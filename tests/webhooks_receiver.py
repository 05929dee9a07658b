"""A receiver of webhooks as a customer has one: real HTTP, verified by `standardwebhooks`."""

import json
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

CLOSES_WITHIN_S = 5


@dataclass(frozen=True)
class Answer:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after_s: float = 0.0


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]  # by lower case
    body: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """The event. Raises standardwebhooks' WebhookVerificationError."""
        event: dict[str, Any] = Webhook(secret).verify(self.body, dict(self.headers))
        return event

    @property
    def event(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.body)
        return said


class Receiver:
    """Answers with `answers` one by one, the last for ever."""

    def __init__(
        self,
        *answers: Answer,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.received: list[Received] = []
        self.names: list[str | None] = []  # that clients asked for in TLS
        self._answers = list(answers) or [Answer()]
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, port), _handler(self._answer))
        self._server.daemon_threads = True
        if certificate is not None:
            self._speak_tls(*certificate)
        self.host, self.port = host, self._server.server_port
        self._scheme = "http" if certificate is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(CLOSES_WITHIN_S)
        self._server.server_close()

    @property
    def url(self) -> str:
        return self.at(self.host)

    def at(self, host: str, path: str = "/hook") -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    def wait_for(self, count: int, within_s: float = 20) -> list[Received]:
        deadline = time.monotonic() + within_s
        while len(self.received) < count:
            assert time.monotonic() < deadline, f"{len(self.received)} of {count} came"
            time.sleep(0.02)
        return self.received

    def _answer(self, received: Received) -> Answer:
        with self._lock:
            self.received.append(received)
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def _speak_tls(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.sni_callback = lambda _, name, __: self.names.append(name)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)


def _handler(answer: Callable[[Received], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            said = answer(Received(self.path, headers, body))
            time.sleep(said.after_s)
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        do_GET = do_POST  # noqa: N815 - a redirect that is followed may come as one

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # whoever asked did not wait
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Tests say what they have to by failing."""

    return Handler


class TunnelProxy:
    """A proxy that leads every CONNECT to one port of this machine, and notes what it was asked."""

    def __init__(self, to_port: int) -> None:
        self.asked: list[str] = []
        handler = _tunnel(self.asked, to_port)
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "TunnelProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(CLOSES_WITHIN_S)
        self._server.server_close()


def _tunnel(asked: list[str], to_port: int) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().split()[1])
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", to_port)) as inner:
                back = threading.Thread(target=_copy, args=(inner, self.connection))
                back.start()
                _copy(self.connection, inner)
                inner.shutdown(socket.SHUT_WR)
                back.join(CLOSES_WITHIN_S)

    return Handler


def _copy(here: socket.socket, there: socket.socket) -> None:
    while piece := here.recv(65536):
        there.sendall(piece)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-made one, good for that name alone, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    to = ["-nodes", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    of = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*made, *to, *of], check=True, capture_output=True)
    return certificate, key


def trusting(certificate: Path) -> ssl.SSLContext:
    """As a customer's own certificate authority would be trusted."""
    return ssl.create_default_context(cafile=str(certificate))
