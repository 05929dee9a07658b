"""Clients that vanish in the middle of an upload, or hardly send anything."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.factory import World
from tests.faults.checks import assert_nothing_left
from tests.faults.conftest import MakeSite
from tests.faults.processes import Site, until

CLIENTS = 50  # more than the API has threads
BEGINNING = (
    b"--b\r\n"
    b'Content-Disposition: form-data; name="weights"; filename="adapter_model.safetensors"\r\n\r\n'
)


@pytest.fixture
def api(make_site: MakeSite) -> Site:
    site = make_site(body_bytes_per_s=1000, body_grace_s=1)
    site.start_api()
    return site


@pytest.fixture
def clients(api: Site) -> Iterator[list[socket.socket]]:
    """Each in the middle of an upload that will not end."""
    with ExitStack() as stack:
        yield [stack.enter_context(begun_upload(api)) for _ in range(CLIENTS)]


def begun_upload(site: Site) -> socket.socket:
    client = socket.create_connection(site.address)
    client.sendall(
        b"POST /v1/adapters HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + BEGINNING
    )
    return client


def test_uploads_whose_clients_vanish_leave_nothing(
    api: Site, clients: list[socket.socket], world: World
) -> None:
    until(lambda: len(list(api.staging.iterdir())) == CLIENTS, "all are being received")
    for client in clients:
        client.close()
    api.upload(world.adapter)
    assert_nothing_left(api)


def test_clients_that_hardly_send_anything_are_cut_off_while_others_are_served(
    api: Site, clients: list[socket.socket], world: World
) -> None:
    until(lambda: len(list(api.staging.iterdir())) == CLIENTS, "all are being received")
    slow = clients[0]
    slow.settimeout(0.1)
    api.upload(world.adapter)
    answer = until(lambda: dribbled(slow, api), "the slow client is answered", 10)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert_nothing_left(api)


def dribbled(client: socket.socket, site: Site) -> bytes:
    """One byte more; what the server says to it, and b"" while it says nothing."""
    assert site.http.get("/healthz").is_success
    try:
        client.sendall(b"x")
        return client.recv(65536)
    except TimeoutError:
        return b""
