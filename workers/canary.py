"""A small task that goes the way of every job, from the broker through the consumer into the pool's
child, so that a worker whose child hangs, or whose consumer is deaf, is seen as not ready.

Each worker has a queue of its own for it: in the common one any worker would answer.
"""

import os
import socket

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError
from redis import RedisError

from app.storage.queue import QUEUE_NAME, connect

TASK_NAME = "adapter_safety.canary"


def own_name() -> str:
    """Of this worker, among all that share a broker. To be asked in the parent."""
    return f"{socket.gethostname()}:{os.getpid()}"


def own_queue(name: str) -> Queue:
    """On the nameless exchange, which keeps no list of queues: nothing of it stays behind."""
    queue = f"{QUEUE_NAME}.canary.{name}"
    return Queue(queue, Exchange(""), routing_key=queue)  # type: ignore[no-untyped-call] # because kombu has few types


class Canary:
    """Sends one where none is under way."""

    def __init__(self, app: Celery, redis_url: str, name: str, silent_s: float) -> None:
        self._app, self._redis_url = app, redis_url
        self._queue, self._kept_s = own_queue(name).name, max(1, round(silent_s))

    def send(self) -> bool:
        """Whether the broker has taken it, or still has the one before."""
        try:
            with connect(self._redis_url) as client:
                if not client.llen(self._queue):
                    self._send()
                    client.expire(self._queue, self._kept_s)
        except (KombuError, RedisError, OSError):
            return False
        return True

    def forget(self) -> None:
        """The worker ends, and nobody will answer."""
        try:
            with connect(self._redis_url) as client:
                client.unlink(self._queue)
        except (RedisError, OSError):
            return  # it runs out by itself

    def _send(self) -> None:
        with self._app.connection_for_write() as connection:
            self._app.send_task(
                TASK_NAME,
                routing_key=self._queue,
                exchange="",
                connection=connection,
                retry=False,
                expires=self._kept_s,
            )
