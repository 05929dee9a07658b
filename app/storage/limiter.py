"""How often each key may ask: a count a minute in Redis, by Redis's own clock."""

import logging

from redis import RedisError

from app.domain.access_errors import RateLimited
from app.storage.queue import connect

logger = logging.getLogger(__name__)

WINDOW_S = 60


class RedisLimiter:
    """`Limiter` in windows of a minute that begin with a key's first request. Around the end of one
    a key may so make up to twice its number within a minute."""

    def __init__(self, redis_url: str, per_minute: int, prefix: str = "adapter-safety:") -> None:
        self._redis = connect(redis_url)  # opens no connection yet
        self._limit, self._prefix = per_minute, prefix

    def take(self, key: str) -> None:
        """Raises RateLimited. 0 requests a minute is no limit."""
        if self._limit == 0:
            return
        try:
            count, left_s = self._count(f"{self._prefix}requests:{key}")
        except (RedisError, OSError) as error:
            logger.warning("requests are not counted: %s", error)
            return
        if count > self._limit:
            raise RateLimited(limit=self._limit, retry_after_s=max(1, left_s))

    def _count(self, name: str) -> tuple[int, int]:
        """Requests in this window with this one, and how long it goes on."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(name, 0, ex=WINDOW_S, nx=True)
            pipe.incr(name)
            pipe.ttl(name)
            _, count, left_s = pipe.execute()
        return int(count), int(left_s)
