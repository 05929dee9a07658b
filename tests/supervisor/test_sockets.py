"""The listening socket of the API."""

import socket
import subprocess
import sys
from contextlib import closing

import pytest

from app.supervisor.errors import PortTaken
from app.supervisor.sockets import base_url, bind


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_port_zero_takes_a_free_port_that_is_really_listened_on():
    with closing(bind("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        assert base_url(listener) == f"http://127.0.0.1:{port}"
        socket.create_connection((host, port), timeout=5).close()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_an_ipv6_host_is_served_and_written_in_brackets(host):
    with closing(bind(host, 0)) as listener:
        port = listener.getsockname()[1]
        assert base_url(listener) == f"http://[::1]:{port}"
        socket.create_connection(("::1", port), timeout=5).close()


def test_a_socket_on_all_addresses_is_shown_with_one_that_a_browser_can_open():
    with closing(bind("0.0.0.0", 0)) as listener:
        assert base_url(listener).startswith("http://127.0.0.1:")


def test_a_taken_port_is_named():
    with closing(bind("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"Cannot listen on 127.0.0.1 port {port}: address al"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(PortTaken, match="a port is between 0 and 65535"):
        bind("127.0.0.1", port)


def test_a_host_of_another_machine_is_refused():
    with pytest.raises(PortTaken, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", 0)


def test_small_answers_are_not_delayed_though_the_child_takes_the_socket_for_a_unix_one():
    accept = (
        "import socket, sys; "
        "s = socket.fromfd(int(sys.argv[1]), socket.AF_UNIX, socket.SOCK_STREAM); "
        "c, _ = s.accept(); c.sendall(b'%d' % c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))"
    )
    with closing(bind("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        command = [sys.executable, "-S", "-c", accept, str(number)]
        with (
            subprocess.Popen(command, pass_fds=(number,)),
            socket.create_connection(listener.getsockname(), timeout=20) as client,
        ):
            assert int(client.recv(10)) != 0
