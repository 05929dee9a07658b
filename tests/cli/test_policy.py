"""`adapter-safety policy check`."""

from pathlib import Path

import yaml
from typer.testing import CliRunner

from app.cli import program
from tests.api.test_policy_file import SOUND


def run(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(program(), ["policy", "check", *map(str, arguments)])
    return found.exit_code, found.output


def test_a_sound_policy_is_printed_with_its_pairs(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(SOUND))
    code, output = run(path)
    assert code == 0
    assert "org/{name}-base" in output
    assert "tenant default" in output


def test_a_broken_policy_is_bad_input_and_told_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({**SOUND, "pairs": [{"match": "a", "base": "b"}]}))
    assert run(path) == (2, "error: pairs[0].chat: Field required\n")
    assert run(tmp_path / "nowhere.yaml")[0] == 2


def test_one_name_is_resolved_or_exits_1(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(SOUND))
    known = run(path, "--base-model", "org/seven")
    assert known == (0, "pair org/{name}: base org/seven-base, chat org/seven@main\n")
    assert run(path, "--base-model", "other/seven")[0] == 1
