"""API keys, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, select, update

from app.domain.access import ApiKey, live
from app.domain.access_errors import KeyNotFound
from app.domain.errors import InvalidField
from app.storage.keys import SqlKeys
from app.storage.tables import api_keys


@pytest.fixture
def keys(database_url: str) -> Iterator[SqlKeys]:
    kept = SqlKeys(database_url)
    yield kept
    kept.close()


def made(keys: SqlKeys, **changes: str) -> tuple[ApiKey, str]:
    asked = {"name": "pipeline", "tenant": "team-a", **changes}
    return keys.create(asked["name"], asked["tenant"], ("submit", "read"))


def test_a_key_is_verified_by_its_text(keys: SqlKeys) -> None:
    key, text = made(keys)
    found = keys.verify(text)
    assert found is not None
    assert (found.id, found.tenant, found.scopes) == (key.id, "team-a", ("submit", "read"))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text.replace("ask_", "ASK_"),
        lambda text: f"ask_{'0' * 16}_{text.rpartition('_')[2]}",
        lambda text: text + " ",
        lambda _: "",
        lambda _: "ask_\x00",
        lambda text: text.rpartition("_")[0] + "_",
    ],
    ids=["another secret", "another prefix", "another id", "a space", "none", "NUL", "no secret"],
)
def test_anything_else_is_no_key(keys: SqlKeys, change) -> None:
    _, text = made(keys)
    assert keys.verify(change(text)) is None


def test_the_secret_is_not_in_the_database(keys: SqlKeys, database_url: str) -> None:
    _, text = made(keys)
    secret = text.split("_", 2)[2]
    engine = create_engine(database_url)
    with engine.connect() as connection:
        row = connection.execute(select(api_keys)).one()
    engine.dispose()
    assert not any(secret in str(value) for value in row)


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(keys: SqlKeys) -> None:
    key, text = made(keys)
    revoked = keys.revoke(key.id)
    assert keys.verify(text) is None
    assert keys.revoke(key.id).revoked_at == revoked.revoked_at
    assert [kept.id for kept in keys.all()] == [key.id]
    assert live(keys.all()) == []


def test_revoking_what_is_not_there_says_so(keys: SqlKeys) -> None:
    with pytest.raises(KeyNotFound, match="0000"):
        keys.revoke("0000")


def test_the_last_use_is_noted_and_not_at_every_request(keys: SqlKeys, database_url: str) -> None:
    key, text = made(keys)
    assert key.last_used_at is None
    keys.verify(text)
    first = keys.all()[0].last_used_at
    assert first is not None
    keys.verify(text)
    assert keys.all()[0].last_used_at == first
    earlier = first - timedelta(minutes=5)
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(update(api_keys).values(last_used_at=earlier))
    engine.dispose()
    keys.verify(text)
    assert keys.all()[0].last_used_at > earlier


@pytest.mark.parametrize("changes", [{"tenant": "Team A"}, {"tenant": ""}, {"name": ""},
                                     {"name": "a\nb"}, {"tenant": "a" * 65}])  # fmt: skip
def test_a_key_needs_a_name_and_a_tenant(keys: SqlKeys, changes: dict[str, str]) -> None:
    with pytest.raises(InvalidField, match=next(iter(changes))):
        made(keys, **changes)
    assert keys.all() == []
