"""Requests a minute, counted in a real Redis."""

import uuid

import pytest
from redis import Redis

from app.domain.access_errors import RateLimited
from app.storage.limiter import RedisLimiter
from tests.servers import RedisServer


def limiter(url: str, per_minute: int) -> RedisLimiter:
    return RedisLimiter(url, per_minute, prefix=f"test-{uuid.uuid4().hex}:")


def test_the_request_over_the_limit_is_told_when_to_come_again(redis_url: str) -> None:
    limit = limiter(redis_url, 3)
    for _ in range(3):
        limit.take("one")
    with pytest.raises(RateLimited) as caught:
        limit.take("one")
    assert 1 <= caught.value.facts["retry_after_s"] <= 60
    assert caught.value.facts["limit"] == 3


def test_each_key_has_its_own_count(redis_url: str) -> None:
    limit = limiter(redis_url, 1)
    limit.take("one")
    limit.take("other")
    with pytest.raises(RateLimited):
        limit.take("one")


def test_a_new_minute_begins_anew(redis_url: str) -> None:
    prefix = f"test-{uuid.uuid4().hex}:"
    limit = RedisLimiter(redis_url, 1, prefix)
    limit.take("one")
    with Redis.from_url(redis_url) as redis:
        assert 0 < redis.ttl(f"{prefix}requests:one") <= 60
        redis.pexpire(f"{prefix}requests:one", 0)
    limit.take("one")


def test_no_limit_counts_nothing(redis_url: str) -> None:
    limit = limiter(redis_url, 0)
    for _ in range(100):
        limit.take("one")


def test_a_redis_that_is_away_stops_no_one(own_redis: RedisServer) -> None:
    limit = limiter(own_redis.url, 1)
    limit.take("one")
    own_redis.stop()
    limit.take("one")
