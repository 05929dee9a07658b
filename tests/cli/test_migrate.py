"""`adapter-safety migrate`."""

import sqlite3
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import program
from app.storage import migrate


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(program(), ["migrate", *words])
    return done.exit_code, done.output


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ADAPTER_SAFETY_DATA_DIR", str(tmp_path))
    return f"sqlite:///{tmp_path}/records.sqlite3"


def test_a_look_changes_nothing_and_says_what_is_there(url: str) -> None:
    code, said = run("--check")
    assert (code, said) == (
        3,
        f"error: the database's schema is not there, this version's is {migrate.head()}\n",
    )
    assert not Path(url.removeprefix("sqlite:///")).exists()
    migrate.upgrade(url, "0001")
    code, said = run("--check")
    assert (code, "schema is 0001" in said) == (3, True)
    assert migrate.current(url) == "0001"
    assert run() == (0, "the database is up to date\n")
    assert run("--check") == (0, "the database is up to date\n")


def test_a_wait_ends_when_another_has_migrated(url: str) -> None:
    other = threading.Timer(0.3, migrate.upgrade, [url])
    other.start()
    assert run("--check", "--wait", "60") == (0, "the database is up to date\n")
    other.join()


def test_a_server_that_does_not_answer_is_waited_for_and_then_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    monkeypatch.setenv("ADAPTER_SAFETY_DATABASE_URL", away)
    code, said = run("--check", "--wait", "0.1")
    assert (code, "schema is not to be reached" in said) == (3, True)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("LOG_LEVEL", "INFO", "ADAPTER_SAFETY_LOG_LEVEL: "),
        ("DATABASE_URL", "nonsense", "ADAPTER_SAFETY_DATABASE_URL: "),
        ("DATABASE_URL", "postgres://me@host/name", "begins with postgresql+psycopg://"),
        ("DATABASE_URL", "mysql://me@host/name", "must be sqlite:////folder/file or postgresql"),
        ("STORAGE_URL", "gs://bucket/there", "must be s3://bucket/prefix or file:///folder"),
        ("REDIS_URL", "http://host", "must be redis://host:port/db"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, foo", "'foo' does not appear to be an IPv4 or IPv6"),
    ],
)
def test_a_setting_that_cannot_be_is_named_in_one_line(
    setting: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ADAPTER_SAFETY_{setting}", value)
    code, told = run()
    assert (code, told.count("\n"), said in told) == (2, 1, True), told


def test_a_schema_of_a_later_version_is_named_and_left_alone(url: str) -> None:
    migrate.upgrade(url)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE alembic_version SET version_num = '0099'")
    database.close()
    code, said = run()
    assert (code, "0099, of a later version" in said) == (2, True), said
    assert migrate.current(url) == "0099"


def test_why_the_database_does_not_answer_is_said_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = "postgresql+psycopg://nobody:hunter2hunter2@127.0.0.1:1/none"
    monkeypatch.setenv("ADAPTER_SAFETY_DATABASE_URL", away)
    code, said = run()
    assert (code, "Connection refused" in said, "hunter2" in said) == (3, True, False), said
