"""A service that lets a key ask only so often."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from app.client import Patience, Throttled, Unauthenticated
from app.domain.access import parse_scopes
from app.storage.keys import SqlKeys
from tests.client.both import CLIENTS
from tests.servers import RedisServer
from tests.service import Service, running

PER_MINUTE = 40


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, model_root: Path, counting: RedisServer
) -> Iterator[Service]:
    with running(
        tmp_path_factory.mktemp("throttled"),
        model_root,
        ADAPTER_SAFETY_AUTH="keys",
        ADAPTER_SAFETY_REDIS_URL=counting.url,
        ADAPTER_SAFETY_REQUESTS_PER_MINUTE=str(PER_MINUTE),
    ) as service:
        yield service


@pytest.mark.parametrize("kind", CLIENTS, ids=["blocking", "awaiting"])
def test_who_asks_too_often_waits_as_told_or_is_told(
    kind: Any, guarded: Service, counting: RedisServer
) -> None:
    """The service counts by the minute; the minute is cut short, so that the test need not wait."""
    with closing(SqlKeys(f"sqlite:///{guarded.data}/records.sqlite3")) as keys:
        key, text = keys.create("test", "team", parse_scopes("read"))
    with kind(guarded.url, api_key=text, patience=Patience(longest_s=0.01)) as hasty:
        for _ in range(PER_MINUTE):
            list(hasty.jobs())
        with pytest.raises(Throttled) as told:
            list(hasty.jobs())
    assert 1 <= (told.value.retry_after_s or 0) <= 60
    with redis.Redis.from_url(counting.url) as broker:
        assert broker.expire(f"adapter-safety:requests:{key.id}", 2)
    began = time.monotonic()
    with kind(guarded.url, api_key=text) as patient:
        assert list(patient.jobs()) == []
    assert 1 <= time.monotonic() - began < 10


@pytest.mark.parametrize("kind", CLIENTS, ids=["blocking", "awaiting"])
def test_without_a_key_nothing_is_asked_again(kind: Any, guarded: Service) -> None:
    with kind(guarded.url) as client, pytest.raises(Unauthenticated):
        client.job("any")
