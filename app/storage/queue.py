"""The queue on Celery and Redis. It sends a task's name and a job's id, and imports no task."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from celery import Celery
from kombu.exceptions import KombuError
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.domain.errors import Unavailable
from app.domain.job import JobKind

TASK_NAMES: Mapping[JobKind, str] = {
    "patch": "adapter_safety.patch",
    "score": "adapter_safety.score",
    "alignment": "adapter_safety.alignment",
    "safety_module": "adapter_safety.safety_module",
    "salora_init": "adapter_safety.salora_init",
    "salora_train": "adapter_safety.salora_train",
    "salora_export": "adapter_safety.salora_export",
    "evaluate": "adapter_safety.evaluate",
    "frontier": "adapter_safety.frontier",
}
QUEUE_NAME = "adapter-safety"

CONNECT_TIMEOUT_S = 1.0
SEND_TIMEOUT_S = 1.0
SOCKET_TIMEOUT_S = 10.0  # above the second that a worker's BRPOP waits, see kombu's brpop_timeout
HEALTH_CHECK_INTERVAL_S = 25  # kombu's default, said here because it must not be 0
VISIBILITY_TIMEOUT_S = 6 * 3600.0


def celery_url(redis_url: str) -> str:
    """A redis-py URL as Celery wants it: `unix:///x.sock?db=1` -> `redis+socket:///x.sock?...`."""
    url = urlsplit(redis_url)
    if url.scheme != "unix":
        return redis_url
    database = parse_qs(url.query).get("db", ["0"])[0]
    login = f"{url.netloc}" if "@" in url.netloc else ""
    return f"redis+socket://{login}{url.path}?virtual_host={quote(database)}"


def celery_settings(redis_url: str, *, visibility_timeout_s: float) -> dict[str, Any]:
    """What every Celery app on this broker has to agree on: the sender's and the worker's.

    `visibility_timeout_s` must be above the worker's hard time limit: a message not acknowledged
    by then is handed out again. Celery wants it in three places, and the shortest among all apps
    on one broker wins.
    """
    visibility = {"visibility_timeout": visibility_timeout_s}
    return {
        "broker_url": celery_url(redis_url),
        "broker_transport_options": {
            **visibility,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
            "health_check_interval": HEALTH_CHECK_INTERVAL_S,
        },
        "result_backend_transport_options": visibility,
        "visibility_timeout": visibility_timeout_s,
        "task_default_queue": QUEUE_NAME,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,  # because the records hold the truth about a job
        "broker_connection_retry_on_startup": True,
    }


class CeleryQueue:
    """`Queue` that sends by task name. Several apps may share a Redis by `queue` or by database."""

    def __init__(
        self,
        redis_url: str,
        *,
        queue: str = QUEUE_NAME,
        visibility_timeout_s: float = VISIBILITY_TIMEOUT_S,
    ) -> None:
        self._redis_url = redis_url
        self._queue = queue
        self._app = _sender(redis_url, visibility_timeout_s)

    def send(self, job_id: str, kind: JobKind) -> None:
        """Hand a job's id to the workers. Raises Unavailable within about two seconds.

        The task has the job's id, so that one id runs through every log. Sending a job twice is
        harmless: only one of its tasks can claim it.
        """
        try:
            # A connection of its own (about a millisecond), because kombu's pool is shared by all
            # of a process, hands out dead connections, and waits without end when it is empty.
            with self._app.connection_for_write() as connection:
                self._app.send_task(
                    TASK_NAMES[kind],
                    args=[job_id],
                    task_id=job_id,
                    queue=self._queue,
                    connection=connection,
                    retry=False,
                )
        except (KombuError, RedisError, OSError) as error:
            raise Unavailable(part="broker") from error

    def depth(self) -> int:
        """How many messages wait for a worker; kombu keeps a queue as a list of its name."""
        try:
            with connect(self._redis_url) as client:
                return int(client.llen(self._queue))
        except (RedisError, OSError) as error:
            raise Unavailable(part="broker") from error

    def check(self) -> None:
        """Raises Unavailable when the broker does not answer a ping."""
        try:
            with connect(self._redis_url) as client:
                client.ping()
        except (RedisError, OSError) as error:
            raise Unavailable(part="broker") from error


def _sender(redis_url: str, visibility_timeout_s: float) -> Celery:
    app = Celery("adapter-safety-sender", set_as_current=False)
    app.conf.update(celery_settings(redis_url, visibility_timeout_s=visibility_timeout_s))
    # A request waits for us, so we give up soon; a worker waits for as long as it takes.
    app.conf.broker_transport_options |= {
        "socket_timeout": SEND_TIMEOUT_S,
        "max_retries": 0,
        "interval_start": 0,
    }
    app.conf.broker_connection_timeout = CONNECT_TIMEOUT_S
    return app


def connect(redis_url: str) -> Redis:
    """A redis-py client that gives up within about two seconds.

    It never tries again (by default it would, for seven seconds): a connection that the server has
    closed is noticed when it leaves the pool.
    """
    return Redis.from_url(
        redis_url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=SEND_TIMEOUT_S,
        health_check_interval=HEALTH_CHECK_INTERVAL_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
