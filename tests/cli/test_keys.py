"""`adapter-safety keys`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import program
from app.storage.keys import SqlKeys


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADAPTER_SAFETY_DATA_DIR", str(tmp_path / "data"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(program(), ["keys", *arguments])

    return run


def test_a_made_key_opens_and_a_revoked_one_does_not(run, tmp_path: Path) -> None:
    made = run("create", "--name", "pipeline", "--tenant", "team-a", "--scope", "read,submit")
    assert made.exit_code == 0
    text = made.stdout.strip()
    keys = SqlKeys(f"sqlite:///{tmp_path}/data/records.sqlite3")
    found = keys.verify(text)
    assert found is not None
    assert (found.name, found.tenant, found.scopes) == ("pipeline", "team-a", ("submit", "read"))
    assert run("revoke", found.id).exit_code == 0
    assert keys.verify(text) is None
    keys.close()


def test_the_list_has_every_key_and_no_secret(run) -> None:
    texts = [run("create", "--name", name).stdout.strip() for name in ("one", "other")]
    run("revoke", texts[0].split("_")[1])
    listed = run("list").stdout
    for text in texts:
        _, key_id, secret = text.split("_", 2)
        assert key_id in listed
        assert secret not in listed
    assert [line.split()[-2] for line in listed.splitlines() if "default" in line] == [
        "revoked",
        "live",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "--name", "x", "--scope", "write"), "scope"),
        (("create", "--name", "x", "--tenant", "A b"), "tenant"),
        (("create", "--name", ""), "name"),
        (("revoke", "nothing"), "no API key has the id nothing"),
    ],
)
def test_what_cannot_be_done_is_said(run, arguments: tuple[str, ...], says: str) -> None:
    answer = run(*arguments)
    assert answer.exit_code == 2
    assert says in answer.output
