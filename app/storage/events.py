"""One Redis stream of events a job, and which workers are alive. Redis may lose both: they only
inform; the records hold the truth."""

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from redis import RedisError
from redis import asyncio as aredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.domain.errors import InvalidField, Unavailable
from app.domain.job import JobEvent
from app.storage.queue import CONNECT_TIMEOUT_S, connect

log = logging.getLogger(__name__)

MAX_EVENTS = 10_000  # a stream; about ten times the modules of the largest adapters
KEPT_S = 7 * 24 * 3600.0  # a stream, after its last event
MAX_READ = 1_000  # events one read returns
GRACE_S = 5.0  # how much longer than its block a read may take

STREAM_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
LARGEST_PART = 2**64 - 1


class RedisEvents:
    """`Events` on Redis streams, under `<key_prefix>events:<job>`."""

    def __init__(
        self, redis_url: str, key_prefix: str = "adapter-safety:", kept_s: float = KEPT_S
    ) -> None:
        self._url, self._kept_ms = redis_url, max(1, round(kept_s * 1000))
        self._prefix = key_prefix
        self._redis = connect(redis_url)  # opens no connection yet; makes its own after a fork

    def publish(self, job_id: str, name: str, data: Mapping[str, object]) -> None:
        """Append an event. A Redis that is away is logged, not raised."""
        key = self._stream(job_id)
        fields: Any = {"name": name, "data": json.dumps(data)}
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.xadd(key, fields, maxlen=MAX_EVENTS, approximate=True)
                pipe.pexpire(key, self._kept_ms)
                pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("event %s of job %s was lost: %s", name, job_id, error)

    def forget(self, job_id: str) -> None:
        """Drop a job's stream. A Redis that is away is logged: streams run out by themselves."""
        try:
            self._redis.unlink(self._stream(job_id))
        except (RedisError, OSError) as error:
            log.warning("the events of job %s stay until they run out: %s", job_id, error)

    async def read(self, job_id: str, *, after: str, block_s: float) -> list[JobEvent]:
        """The events after id `after` ("0" for all), waiting up to `block_s` for the first.

        At most 1,000 at once. Opens a connection and closes it: redis.asyncio's connections belong
        to one event loop, and one that waits cannot be shared anyway.
        Raises InvalidField(field="Last-Event-ID"), Unavailable.
        """
        check_event_id(after)
        block_ms = max(1, int(block_s * 1000)) if block_s > 0 else None  # 0 would be for ever
        try:
            async with self._reader(block_s) as client:
                answer = await client.xread(
                    {self._stream(job_id): after}, count=MAX_READ, block=block_ms
                )
        except (RedisError, OSError) as error:
            raise Unavailable(part="broker") from error
        return [_event(*entry) for entry in _entries(answer)]

    async def last(self, job_id: str) -> JobEvent | None:
        """The newest event, None where there is no stream. Raises Unavailable."""
        try:
            async with self._reader(0) as client:
                found: Any = await client.xrevrange(self._stream(job_id), count=1)
        except (RedisError, OSError) as error:
            raise Unavailable(part="broker") from error
        return _event(*found[0]) if found else None

    async def aclose(self) -> None:
        """Close the publisher's connections."""
        self.close()

    def close(self) -> None:
        """Close the publisher's connections."""
        self._redis.close()

    # -------------------------------------------------------------------------------- workers
    def beat(self, worker: str, ttl_s: float) -> None:
        """Say that `worker` is alive for `ttl_s` from now. A Redis that is away is logged."""
        try:
            now = self._now()
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.zadd(self._workers, {worker: now + ttl_s})
                pipe.zremrangebyscore(self._workers, "-inf", now)
                pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("a heartbeat of worker %s was lost: %s", worker, error)

    def workers_alive(self) -> int:
        """How many workers' heartbeats have not run out. Raises Unavailable."""
        try:
            return int(self._redis.zcount(self._workers, f"({self._now()}", "+inf"))
        except (RedisError, OSError) as error:
            raise Unavailable(part="broker") from error

    @property
    def _workers(self) -> str:
        return f"{self._prefix}workers"

    def _now(self) -> float:
        """Redis's clock, because the workers' own may disagree; seconds since 1970."""
        seconds, microseconds = self._redis.time()
        return float(seconds + microseconds / 1e6)

    def _stream(self, job_id: str) -> str:
        return f"{self._prefix}events:{job_id}"

    def _reader(self, block_s: float) -> aredis.Redis:
        return aredis.Redis.from_url(
            self._url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=max(block_s, 0) + GRACE_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )


def check_event_id(value: str) -> None:
    """Raises InvalidField(field="Last-Event-ID") unless `value` is "0" or an id of a stream."""
    match = STREAM_ID.fullmatch(value)
    if match is None or any(int(part) > LARGEST_PART for part in match.groups("0")):
        raise InvalidField(field="Last-Event-ID", reason="not an id of an event of this service")


def _entries(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """The one stream's entries in an XREAD answer; RESP2 gives a list of streams, RESP3 a dict."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (batches,) = answer.values()
        return [entry for batch in batches for entry in batch]
    return list(answer[0][1])


def _event(event_id: str, fields: Mapping[str, str]) -> JobEvent:
    return JobEvent(id=event_id, name=fields["name"], data=json.loads(fields["data"]))
