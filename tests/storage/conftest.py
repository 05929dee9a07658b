"""Webhooks on SQLite and PostgreSQL, with a clock that the test moves."""

from collections.abc import Iterator

import pytest

from app.storage.database import Database
from app.storage.webhooks import SqlWebhooks
from tests.kept_webhooks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def webhooks(database: Database, clock: Clock) -> SqlWebhooks:
    return SqlWebhooks(database, clock=clock)
