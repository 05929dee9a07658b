"""Requests in, answers out, over real sockets."""

import json
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.hub.errors import HubError
from tests.hub.faults import Faults
from tests.hub.log import Log, Request
from tests.hub.objects import CHUNK_BYTES
from tests.hub.ranges import Sending, asked


@dataclass
class Call:
    """One request, as a route sees it."""

    request: Request
    raw_path: str  # still quoted, because a revision may hold slashes
    chunks: Iterator[bytes]  # of the body
    base: str  # scheme, host and port
    target: str  # path and query, as asked

    @property
    def token(self) -> str | None:
        kind, _, token = self.request.headers.get("authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body())


@dataclass
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def sending(self) -> tuple[Sending, bytes]:
        length = {"Content-Length": str(len(self.body))}
        return Sending(self.status, {**length, **self.headers}), self.body


def told(value: Any, status: int = 200, /, **headers: str) -> Answer:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(status, kind | headers, json.dumps(value).encode())


App = Callable[[Call], "Answer | Sending"]


class Host(ThreadingHTTPServer):
    """One host on a port of its own; `stop` ends every connection and every thread."""

    request_queue_size = 64
    daemon_threads = False  # because `stop` waits for them

    def __init__(self, name: str, hostname: str, app: App, log: Log, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.app, self.log, self.faults = name, app, log, faults
        self.base = f"http://{hostname}:{self.server_address[1]}"
        self.crashes: list[str] = []
        self._connections: set[socket.socket] = set()
        self._lock = Lock()
        self._thread = Thread(target=self.serve_forever, args=(0.02,), name=f"the test's {name}")
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:
                _break(connection)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.crashes.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    server: Host
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # because headers and body go in two writes

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def serve(self) -> None:
        call = self._call()
        refusal = self.server.faults.refusal(self.server.name, self.command, call.request.path)
        self.server.log.add(call.request)
        if refusal and refusal.status is None:
            self._drop()
            return
        answer = self._refused(refusal) if refusal else self._answer(call)
        for _ in call.chunks:  # what no route has read would be taken for the next request
            pass
        body = b""
        if isinstance(answer, Answer):
            answer, body = answer.sending()
        self._send(call.request, answer, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815 (named by http.server)

    def _call(self) -> Call:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        wanted = asked(headers.get("range"))
        path = unquote(url.path)
        request = Request(self.server.name, self.command, path, query, headers, wanted)
        return Call(request, url.path, self._body_chunks(), self.server.base, self.path)

    def _refused(self, refusal: Any) -> Answer:
        error = HubError(refusal.status, f"the test refuses with {refusal.status}")
        return told({"error": error.message}, error.status, **refusal.headers)

    def _answer(self, call: Call) -> "Answer | Sending":
        try:
            return self.server.app(call)
        except HubError as error:
            return told({"error": error.message}, error.status, **error.headers)
        except Exception:  # noqa: BLE001, because the test that asked reads it in `crashes`
            self.server.crashes.append(traceback.format_exc())
            return told({"error": "the test's hub has crashed"}, 500)

    def _send(self, request: Request, sending: Sending, body: bytes) -> None:
        request.status = sending.status
        self.send_response(sending.status)
        for name, value in sending.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(request, sending, body)

    def _send_body(self, request: Request, sending: Sending, body: bytes) -> None:
        sent = 0
        for chunk in [body] if body else sending.chunks():
            self._wait(sending, sent)
            if sending.cut_after is not None and sent >= sending.cut_after:
                break
            self._write(request, chunk)
            sent += len(chunk)
        else:
            self._wait(sending, sent)
        if sending.cut_after is not None or not sending.honest:
            self._drop()

    def _wait(self, sending: Sending, sent: int) -> None:
        if sending.hold and sent >= sending.hold[1]:
            sending.hold[0].wait()

    def _write(self, request: Request, chunk: bytes) -> None:
        request.sent += len(chunk)  # before, so that who has read the body finds it counted
        try:
            self.wfile.write(chunk)
        except OSError:
            request.sent -= len(chunk)
            raise

    def _drop(self) -> None:
        self.close_connection = True
        _break(self.connection)

    def _body_chunks(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left and (chunk := self.rfile.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


def _break(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is already closed by the other side
        return
