"""What the command line says of itself: examples that parse, exit codes, completion."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from app.cli import program
from app.cli.examples import EXAMPLES
from app.cli.exits import EXITS

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
ROOT = get_command(program())


def commands(group: object = ROOT, before: str = "") -> Iterator[tuple[str, object]]:
    """Every command that does something, as it is typed."""
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


KNOWN = dict(commands())


@pytest.mark.parametrize("name", KNOWN)
def test_each_commands_help_ends_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(program(), [*name.split(), "--help"], env={"COLUMNS": "300"})
    assert shown.exit_code == 0
    said = re.sub(r"\s+", " ", shown.stdout)
    assert "Examples:" in said
    for example in EXAMPLES[name]:
        assert f"adapter-safety {example}" in said
        assert example.startswith(name)


@pytest.mark.parametrize(
    ("name", "example"), [(name, each) for name, found in EXAMPLES.items() for each in found]
)
def test_each_example_parses(name: str, example: str) -> None:
    words = shlex.split(example)[len(name.split()) :]
    command: typer.core.TyperCommand = KNOWN[name]  # type: ignore[assignment] # a leaf of the tree
    with command.make_context(name, words) as context:
        assert context.params or name in ("migrate", "worker-health")


@pytest.mark.parametrize("words", ["patch adapter --out o", "jobs show", "keys create", "score"])
def test_what_lacks_something_does_not(words: str) -> None:
    done = CliRunner().invoke(program(), words.split(), env={"ADAPTER_SAFETY_SERVER": ""})
    assert done.exit_code == 2
    assert "Missing" in done.stderr


def test_every_example_is_of_a_command_that_is_there() -> None:
    assert set(EXAMPLES) == set(KNOWN)


def test_the_exit_codes_are_those_of_the_documentation() -> None:
    rows = re.findall(r"^\| `(\d+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE)
    assert {int(code): said for code, said in rows} == dict(EXITS)


def test_every_command_is_in_the_documentation() -> None:
    text = DOCS.read_text()
    for name in KNOWN:
        assert f"`{name}`" in text or f"`{name} " in text, name


def completed(*words: str) -> list[str]:
    """What bash would offer for the last word."""
    code = "import sys; sys.argv[0] = 'adapter-safety'; from app.cli import main; main()"
    line = " ".join(("adapter-safety", *words))
    environment = {
        **os.environ,
        "_ADAPTER_SAFETY_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("pa",), {"patch"}),
        (("jobs", ""), {"list", "show", "cancel", "report", "download"}),
        (("patch", "--fail"), {"--fail-on"}),
        (("salora", "t"), {"train"}),
    ],
)
def test_bash_completes_commands_and_options(words: tuple[str, ...], offered: set[str]) -> None:
    assert set(completed(*words)) == offered


def test_bash_is_told_how_to_ask() -> None:
    code = "import sys; sys.argv[0] = 'adapter-safety'; from app.cli import main; main()"
    environment = {**os.environ, "_ADAPTER_SAFETY_COMPLETE": "source_bash"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "complete -o default -F" in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode == 0
    shown = CliRunner().invoke(program(), ["--help"]).stdout
    assert "--install-completion" in shown
    assert "--show-completion" in shown
