"""Fixtures of the tests about what is kept for how long."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.retained import World


@pytest.fixture
def world(database_url: str, tmp_path: Path, redis_url: str) -> Iterator[World]:
    made = World(database_url, tmp_path, redis_url)
    yield made
    made.records.close()
    made.webhooks.close()
    made.events.close()
