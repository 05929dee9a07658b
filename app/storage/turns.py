"""One at a time, among all processes and hosts: leases in Redis, or locks on files.

They save work and guard nothing. Two that do the same work leave the same result, so a turn that
lapses, or a Redis that is away, costs time and never a job.
"""

import logging
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from redis import Redis, RedisError

from app.storage.queue import connect

logger = logging.getLogger(__name__)

LEASE_S = 10.0  # how soon the turn of a killed process lapses
RENEWALS_PER_LEASE = 3
PATIENCE_S = 600.0  # several times the singular vectors of an 8192 x 8192 module
PAUSE_S = 30.0  # without turns once Redis did not answer: a silent one costs a second each time
GRACE_S = 0.01  # after a lease's end, because Redis rounds it to milliseconds

# Only the holder's own lease is touched: a slow one's may have lapsed and be another's.
_RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('pexpire', KEYS[1], ARGV[2]) end"
_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then
    redis.call('del', KEYS[1])
    redis.call('publish', KEYS[1], '')
end
"""


class RedisTurns:
    """`Turns` under `<key_prefix>turn:<name>`: a token with an expiry, renewed while it is held.

    Who waits is told over a channel of the key's name when it is free, and looks by itself when the
    holder's lease would end. Nothing stays in Redis.
    """

    def __init__(
        self,
        redis_url: str,
        key_prefix: str = "adapter-safety:",
        *,
        lease_s: float = LEASE_S,
        patience_s: float = PATIENCE_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._redis = connect(redis_url)  # opens no connection yet; makes its own after a fork
        self._prefix, self._lease_s, self._patience_s = key_prefix, lease_s, patience_s
        self._pause_s, self._paused_until = pause_s, 0.0
        self._told = False

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait until the caller alone has the turn called `name`; go on without it where Redis does
        not answer (nor did within the last `pause_s`), or after `patience_s`."""
        with ExitStack() as held:
            if time.monotonic() >= self._paused_until:
                try:
                    lease = _Lease(self._redis, f"{self._prefix}turn:{name}", self._lease_s)
                    if lease.acquire(self._patience_s):
                        held.enter_context(lease.renewed())
                except (RedisError, OSError) as error:
                    self._pause(error)
            yield

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._redis.close()

    def _pause(self, error: Exception) -> None:
        """Told once, because a job has hundreds of modules."""
        self._paused_until = time.monotonic() + self._pause_s
        log = logger.debug if self._told else logger.warning
        log("working without taking turns: %s", error)
        self._told = True


class _Lease:
    """One caller's try at one key."""

    def __init__(self, redis: Redis, key: str, lease_s: float) -> None:
        self._redis, self._key, self._lease_s = redis, key, lease_s
        self._token = secrets.token_hex(16)
        self._ended = threading.Event()

    def acquire(self, patience_s: float) -> bool:
        """False when others have had it for `patience_s`. Raises RedisError, OSError."""
        return self._take() or self._wait(time.monotonic() + patience_s)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Keep the lease until the end of the block, then give it back."""
        renewal = threading.Thread(target=self._renew, name=f"turn-{self._key}", daemon=True)
        renewal.start()
        try:
            yield
        finally:
            self._ended.set()
            renewal.join()
            with suppress(RedisError, OSError):  # it will lapse
                self._redis.eval(_RELEASE, 1, self._key, self._token)

    def _take(self) -> bool:
        return bool(self._redis.set(self._key, self._token, nx=True, px=self._lease_ms))

    def _wait(self, deadline: float) -> bool:
        """Subscribed first, then tried: a release in between is not missed."""
        redis: Any = self._redis  # because redis-py's pubsub has no types
        with redis.pubsub() as channel:
            channel.subscribe(self._key)
            while not self._take():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                # whatever it says, also that it has subscribed: look again
                channel.get_message(timeout=min(left_s, self._holder_s()))
        return True

    def _holder_s(self) -> float:
        """Until the present holder's lease ends, unless it is renewed; 0 where it has ended."""
        left_ms: Any = self._redis.pttl(self._key)
        return float(max(left_ms, 0)) / 1000 + GRACE_S

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / RENEWALS_PER_LEASE):
            with suppress(RedisError, OSError):  # the next round asks again
                self._redis.eval(_RENEW, 1, self._key, self._token, str(self._lease_ms))

    @property
    def _lease_ms(self) -> int:
        return max(1, round(self._lease_s * 1000))
