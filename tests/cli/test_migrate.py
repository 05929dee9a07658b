"""`adapter-safety migrate`."""

import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.storage import migrate


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["migrate", *words])
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
