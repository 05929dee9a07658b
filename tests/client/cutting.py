"""A proxy on loopback that cuts connections, or changes a byte of what comes back."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BLOCK = 4096


@dataclass
class Proxy:
    """Each connection takes the next of `cuts`: after so many bytes of the answer it is cut. With
    none left it passes all. `flip` is a text in an answer of which the last byte is changed."""

    target: tuple[str, int]
    cuts: list[int] = field(default_factory=list)
    flip: bytes | None = None
    connections: int = 0
    asked: bytearray = field(default_factory=bytearray)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed: the test is over
            self.connections += 1
            cut = self.cuts.pop(0) if self.cuts else None
            threading.Thread(target=self._carry, args=(client, cut), daemon=True).start()

    def _carry(self, client: socket.socket, cut: int | None) -> None:
        with closing(client), closing(socket.create_connection(self.target)) as server:
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            self._answer(server, client, cut)
            for each in (client, server):  # because close alone waits for a thread that reads
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while chunk := client.recv(BLOCK):
                self.asked += chunk
                server.sendall(chunk)
        except OSError:
            pass  # the other direction has ended the connection

    def _answer(self, server: socket.socket, client: socket.socket, cut: int | None) -> None:
        left = cut
        try:
            while chunk := server.recv(BLOCK):
                part = chunk if left is None else chunk[:left]
                client.sendall(self._changed(part))
                if left is not None:
                    left -= len(part)
                    if left <= 0:
                        return
        except OSError:
            pass  # the client has gone

    def _changed(self, part: bytes) -> bytes:
        if not self.flip or self.flip not in part:
            return part
        at = part.index(self.flip) + len(self.flip) - 1
        return part[:at] + bytes([part[at] ^ 1]) + part[at + 1 :]


@contextmanager
def proxied(url: str, *cuts: int, flip: bytes | None = None) -> Iterator[tuple[str, Proxy]]:
    """The proxy's URL, and the proxy."""
    parts = urlsplit(url)
    proxy = Proxy((parts.hostname or "", parts.port or 80), list(cuts), flip)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", proxy
        listener.shutdown(socket.SHUT_RDWR)
