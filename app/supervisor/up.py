"""`adapter-safety up`: broker, worker and API on this machine, as one run."""

import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.supervisor import broker, launch, lock, probes, sockets
from app.supervisor.child import Child
from app.supervisor.processes import Backoff, Supervisor


@dataclass(frozen=True)
class Timings:
    """How long each part may take; seconds."""

    broker_ready_s: float = 60.0  # it reads its append-only file first
    worker_ready_s: float = 60.0
    api_ready_s: float = 60.0
    broker_grace_s: float = 10.0
    worker_grace_s: float = 30.0  # longer, because it finishes its job or hands it back
    api_grace_s: float = 10.0
    backoff: Backoff = field(default_factory=Backoff)


def run_up(
    *,
    data_dir: Path,
    host: str,
    port: int,
    redis_url: str | None,
    environment: Mapping[str, str],
    api_command: Callable[[int], Sequence[str]],
    worker_command: Sequence[str],
    on_ready: Callable[[str], None],
    worker_probe: probes.Probe | None = None,
    tell: Callable[[str], None] | None = None,
    verbose: bool = False,
    timings: Timings | None = None,
    watchdog: bool = not launch.ON_LINUX,
) -> int:
    """Runs the service until a stop signal; call it from the main thread.

    `api_command` gets the number of the listening socket's descriptor. The broker is only started
    without a `redis_url`; the children find it as ADAPTER_SAFETY_REDIS_URL (redis-py's form) in
    their environment, which else is `environment`. `on_ready` gets the base URL once /readyz has
    answered 200. Logs go to `data_dir/logs`; `verbose` also shows them through `tell`.

    Returns 0 after a clean stop and 130 when a second Ctrl-C cut it short.
    Raises SupervisorError, with nothing left running, when the service cannot start or stay up.
    """
    data_dir = data_dir.absolute()
    timings = timings or Timings()
    with (
        lock.hold(data_dir) as lock_fd,
        sockets.bind(host, port) as listener,
        _broker(redis_url, data_dir, environment, lock_fd, timings) as (url, brokers),
    ):
        inherited = _environment(environment, url)
        children = [
            *brokers,
            _worker(worker_command, data_dir, inherited, worker_probe, timings),
            _api(api_command, listener, data_dir, inherited, timings),
        ]
        supervisor = Supervisor(
            children,
            tell=tell or _to_stderr,
            backoff=timings.backoff,
            verbose=verbose,
            watchdog=watchdog,
        )
        return supervisor.run(lambda: on_ready(sockets.base_url(listener)))


@contextmanager
def _broker(
    redis_url: str | None,
    data_dir: Path,
    environment: Mapping[str, str],
    lock_fd: int,
    timings: Timings,
) -> Iterator[tuple[str, list[Child]]]:
    """The broker's URL, and the child that serves it unless a URL was given."""
    if redis_url:
        yield redis_url, []
        return
    binary = broker.find_broker_binary(environment.get("PATH"))
    with broker.own_broker(binary, data_dir / "broker") as own:
        child = Child(
            name="broker",
            command=own.command,
            environment=environment,
            log=data_dir / "logs" / "broker.log",
            probe=probes.redis_pong(own.socket),
            ready_within_s=timings.broker_ready_s,
            grace_s=timings.broker_grace_s,
            pass_fds=(lock_fd,),
        )
        yield own.url, [child]


def _worker(
    command: Sequence[str],
    data_dir: Path,
    environment: Mapping[str, str],
    probe: probes.Probe | None,
    timings: Timings,
) -> Child:
    return Child(
        name="worker",
        command=command,
        environment=environment,
        log=data_dir / "logs" / "worker.log",
        probe=probe,
        ready_within_s=timings.worker_ready_s,
        grace_s=timings.worker_grace_s,
    )


def _api(
    command: Callable[[int], Sequence[str]],
    listener: socket.socket,
    data_dir: Path,
    environment: Mapping[str, str],
    timings: Timings,
) -> Child:
    return Child(
        name="api",
        command=command(listener.fileno()),
        environment=environment,
        log=data_dir / "logs" / "api.log",
        probe=probes.http_ok(*sockets.reachable_at(listener)),
        ready_within_s=timings.api_ready_s,
        grace_s=timings.api_grace_s,
        pass_fds=(listener.fileno(),),
        on_stopped=listener.close,  # else clients would wait in its backlog while the rest stops
    )


def _environment(given: Mapping[str, str], redis_url: str) -> dict[str, str]:
    """PYTHONUNBUFFERED, so that a log is complete when its child is killed."""
    return {"PYTHONUNBUFFERED": "1", **given, "ADAPTER_SAFETY_REDIS_URL": redis_url}


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
