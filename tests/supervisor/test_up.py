"""The whole run: broker, worker and API; stand-ins first, then the real programs."""

import errno
import http.client
import os
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import redis

from app.supervisor.sockets import bind

SCRIPTS = Path(__file__).with_name("scripts")


def base_url(run) -> str:
    run.wait_for("READY http")
    return run.output.partition("READY ")[2].split()[0]


def get(url: str, path: str) -> str:
    where = urlsplit(url)
    with closing(http.client.HTTPConnection(where.hostname, where.port, timeout=10)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def test_one_command_runs_all_and_one_interrupt_stops_all(up, marked, tmp_path):
    run = up()
    url = base_url(run)
    broker_url = get(url, "/redis-url")
    assert broker_url == f"unix://{tmp_path}/broker/broker.sock"
    with redis.Redis.from_url(broker_url) as client:
        assert client.ping()
    run.send(signal.SIGINT)
    assert run.finish() == 0
    stopped = [line.split()[2] for line in run.output.splitlines() if "Stopping the" in line]
    assert stopped == ["api", "worker", "broker"]
    assert marked.alive() == []
    assert {log.name for log in (tmp_path / "logs").iterdir()} == {
        "api.log",
        "worker.log",
        "broker.log",
    }


def test_a_killed_run_leaves_nothing_and_the_next_one_starts_on_the_same_folder(up, marked, until):
    first = up()
    base_url(first)
    first.process.kill()
    second = up()
    base_url(second)
    assert {p.pid for p in marked.alive()}.isdisjoint({first.process.pid})
    second.send(signal.SIGTERM)
    assert second.finish() == 0
    until(lambda: not marked.alive())


def test_two_runs_on_one_data_folder_are_refused(up):
    first = up()
    url = base_url(first)
    second = up()
    assert second.finish() == 1
    assert f"Another run (process {first.process.pid}) is using" in second.output
    assert get(url, "/readyz") == "ready"


def test_a_taken_port_is_said_before_anything_is_started(up, marked, tmp_path):
    with closing(bind("127.0.0.1", 0)) as listener:
        run = up(port=listener.getsockname()[1])
        assert run.finish() == 1
    assert "FAILED Cannot listen on 127.0.0.1" in run.output
    assert not (tmp_path / "logs").exists()


def test_a_given_redis_url_is_passed_on_and_no_broker_is_started(up, tmp_path):
    run = up(redis_url="redis://elsewhere:6379/3")
    assert get(base_url(run), "/redis-url") == "redis://elsewhere:6379/3"
    assert not (tmp_path / "broker").exists()
    run.send(signal.SIGINT)
    assert run.finish() == 0


def test_an_api_that_dies_comes_back_on_the_same_port(up):
    run = up()
    url = base_url(run)
    first = get(url, "/pid")
    os.kill(int(first), signal.SIGKILL)
    run.wait_for("The api ended (killed by signal 9)")
    assert get(url, "/pid") != first  # no polling: the connection waits in the backlog


def test_an_api_that_cannot_start_stops_everything_and_shows_its_log(up, marked):
    run = up(api=[sys.executable, "-c", "raise SystemExit('the table is missing')"])
    assert run.finish() == 1
    assert "The api ended before it was ready (exit code 1)" in run.output
    assert "the table is missing" in run.output
    assert marked.alive() == []


def test_a_client_is_refused_not_kept_waiting_while_the_worker_still_stops(up, tmp_path):
    stubborn = [str(SCRIPTS / "stand_in.py"), str(tmp_path / "events"), "worker", "stubborn"]
    run = up(worker=[sys.executable, *stubborn])
    where = urlsplit(base_url(run))
    run.send(signal.SIGINT)
    run.wait_for("Stopping the worker")
    with socket.socket() as client:
        assert client.connect_ex((where.hostname, where.port)) == errno.ECONNREFUSED


def test_the_broker_holds_the_lock_too_so_that_it_outlasts_a_killed_run(up, marked, tmp_path):
    run = up()
    base_url(run)
    lock = str(tmp_path / "up.lock")
    holders = {
        process.pid: process.name()
        for process in marked.alive()
        if lock in [file.path for file in process.open_files()]
    }
    assert holders.pop(run.process.pid)
    assert [name in ("valkey-server", "redis-server") for name in holders.values()] == [True]


CELERY_APP = """
import os
from celery import Celery
from celery.signals import worker_process_init
from app.supervisor.launch import die_with_parent
from app.storage.queue import celery_url

app = Celery("real", broker=celery_url(os.environ["ADAPTER_SAFETY_REDIS_URL"]))
app.conf.broker_connection_retry_on_startup = True

@worker_process_init.connect
def tie(**_):
    die_with_parent()

@app.task
def busy(path):
    import signal
    open(path, "w").close()
    signal.pause()
"""
ASGI_APP = """
import os
from real_celery import busy

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/busy":
        busy.delay(os.environ["BUSY_FILE"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ready"})
"""


def test_killing_a_run_of_the_real_programs_in_the_middle_of_a_job_leaves_nothing(
    up, marked, until, tmp_path
):
    (tmp_path / "real_celery.py").write_text(CELERY_APP)
    (tmp_path / "real_asgi.py").write_text(ASGI_APP)
    uvicorn = ["-m", "uvicorn", "real_asgi:app", "--lifespan", "off", "--fd", "FD"]
    celery = ["-m", "celery", "-A", "real_celery", "worker", "--pool", "prefork", "-c", "1"]
    run = up(
        api=[sys.executable, *uvicorn],
        worker=[sys.executable, *celery],
        environment={
            "PYTHONPATH": f"{marked.environment['PYTHONPATH']}{os.pathsep}{tmp_path}",
            "BUSY_FILE": str(tmp_path / "busy"),
        },
    )
    assert get(base_url(run), "/busy") == "ready"
    until((tmp_path / "busy").exists)
    assert len(marked.alive()) == 5  # the run, broker, API, worker and the worker's child
    run.process.kill()
    until(lambda: not marked.alive())
