"""Answers /readyz, /redis-url and /pid on the listening socket whose number it is given."""

import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

ANSWERS = {
    "/readyz": "ready",
    "/redis-url": os.environ["ADAPTER_SAFETY_REDIS_URL"],
    "/pid": str(os.getpid()),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ANSWERS[self.path].encode())

    def log_message(self, *_: object) -> None:
        """Quiet, because the log is looked at by the tests."""


listener = socket.socket(fileno=int(sys.argv[1]))
server = HTTPServer(listener.getsockname()[:2], Handler, bind_and_activate=False)
server.socket.close()
server.socket = listener
server.serve_forever()
