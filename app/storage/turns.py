"""One at a time, among all processes and hosts: a lock in Redis with a time limit.

It saves work and guards nothing. Two that do the same work leave the same result, so a lock that
lapses, or a Redis that is away, costs time and never a job.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis import RedisError
from redis.exceptions import LockError
from redis.lock import Lock

from app.storage.queue import connect

logger = logging.getLogger(__name__)

HELD_S = 120.0  # at most; the singular vectors of an 8192 x 8192 module take about as long
ASK_EVERY_S = 0.01  # because a module takes about 30 ms, and asking 0.1 ms


class RedisTurns:
    """Turns under `<key_prefix>turn:<name>`."""

    def __init__(self, redis_url: str, key_prefix: str = "adapter-safety:") -> None:
        self._redis = connect(redis_url)  # opens no connection yet; makes its own after a fork
        self._prefix = key_prefix

    @contextmanager
    def turn(self, name: str, held_s: float = HELD_S) -> Iterator[None]:
        """Wait until nobody else has the turn called `name`, at most as long as one may have it."""
        lock = self._redis.lock(
            f"{self._prefix}turn:{name}",
            timeout=held_s,
            sleep=ASK_EVERY_S,
            blocking_timeout=held_s,
            thread_local=False,
        )
        held = _acquired(lock)
        try:
            yield
        finally:
            if held:
                with suppress(LockError, RedisError, OSError):  # it lapsed, or will
                    lock.release()


def _acquired(lock: Lock) -> bool:
    try:
        return bool(lock.acquire())
    except (RedisError, OSError) as error:
        logger.warning("working without taking turns: %s", error)
        return False
