"""The listening socket of the API: bound here once, passed to the child by number.

So no other program can take the port between choosing and serving, and it stays ours while the API
is started again: clients then wait in the backlog instead of being refused.
"""

import socket

from app.supervisor.errors import PortTaken

_BACKLOG = 1024  # connections that wait while the API starts; the kernel caps it (somaxconn)
_HIGHEST_PORT = 65535
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, never bound to


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket on host and port; port 0 takes any free one."""
    if not 0 <= port <= _HIGHEST_PORT:  # getaddrinfo would take 65536 for 0
        raise PortTaken(host, port, f"a port is between 0 and {_HIGHEST_PORT}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise PortTaken(host, port, "the host has no address on this machine") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        _listen(listener, address)
    except OSError as error:
        listener.close()
        raise PortTaken(host, port, (error.strerror or str(error)).lower()) from error
    return listener


def _listen(listener: socket.socket, address: tuple[object, ...]) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it. Needed because uvicorn wraps a passed descriptor as AF_UNIX, and
    # asyncio then does not switch Nagle's delay off: small answers would wait for 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(address)
    listener.listen(_BACKLOG)


def reachable_at(listener: socket.socket) -> tuple[str, int]:
    """Host and port where a client on this machine finds the socket."""
    host, port = listener.getsockname()[:2]
    return _ANY.get(host, host), port


def base_url(listener: socket.socket) -> str:
    host, port = reachable_at(listener)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
