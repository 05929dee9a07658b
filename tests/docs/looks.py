"""What can be said of a script without running it."""

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from typer.main import get_command

from app.cli import program
from tests.docs.blocks import Block
from tests.docs.reference.cli_page import leaves

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(
    r"(?<!--namespace )(?<!-n )(?:^|(?<=[\s/;|&(]))adapter-safety (?P<rest>[^\n;|&>)`]*)"
)
MAKE = re.compile(r"(?:^|[;&|] *)make (?P<targets>[^\n#;&|]*)", re.MULTILINE)
MODULE = re.compile(r"python3? -m (?P<name>(?:app|workers|tests)[\w.]*)")
COMPOSE = re.compile(r"docker compose (?P<rest>[^\n;|&>#]*)")
TAKE_SERVICES = {"up", "exec", "run", "logs", "restart", "stop", "build", "pull", "rm", "kill"}
CONTINUED = re.compile(r"\\\n\s*")


def look(block: Block) -> None:
    """Raises AssertionError: its grammar, and everything of ours that it names."""
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert checked.returncode == 0, f"{block.where}: {checked.stderr}"
    text = CONTINUED.sub(" ", block.text)
    for name in _targets(text):
        assert name in targets(), f"{block.where}: no make target {name!r}"
    for found in MODULE.finditer(text):
        assert importlib.util.find_spec(found["name"]), f"{block.where}: no {found['name']}"
    for words in _compose(text):
        _look_at_compose(words, block.where)
    for words in () if block.is_run else _commands(text):
        _look_at_command(words, block.where)


@cache
def targets() -> frozenset[str]:
    """Of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


@cache
def commands() -> dict[str, Any]:
    return dict(leaves(get_command(program())))


def _targets(text: str) -> Iterator[str]:
    for found in MAKE.finditer(text):
        yield from (word for word in found["targets"].split() if "=" not in word)


def _commands(text: str) -> Iterator[list[str]]:
    for found in COMMAND.finditer(text):
        words = shlex.split(found["rest"], comments=True)
        if words and not words[0].startswith(("-", "=")):
            yield words


def _look_at_command(words: list[str], where: str) -> None:
    """That the command line itself would take these words."""
    name = " ".join(words[:2]) if " ".join(words[:2]) in commands() else words[0]
    assert name in commands(), f"{where}: no command {name!r}"
    left = words[len(name.split()) :]
    if left == ["--help"]:
        return
    with commands()[name].make_context(name, left):
        pass


def _compose(text: str) -> Iterator[list[str]]:
    for found in COMPOSE.finditer(text):
        yield shlex.split(found["rest"], comments=True)


def _look_at_compose(words: list[str], where: str) -> None:
    """Its files are there, and so is the first service that it names."""
    files = [words[i + 1] for i, word in enumerate(words) if word in ("-f", "--file")]
    for name in files:
        assert (ROOT / name).is_file(), f"{where}: no {name}"
    plain = [w for i, w in enumerate(words) if not w.startswith("-") and words[i - 1] not in OPTED]
    if len(plain) > 1 and plain[0] in TAKE_SERVICES:
        service = plain[1]
        assert service in services(tuple(files)), f"{where}: no service {service!r}"


OPTED = ("-f", "--file", "-p", "--profile", "--project-name", "--env-file", "--scale", "-e", "-u")


@cache
def services(files: tuple[str, ...]) -> frozenset[str]:
    found: set[str] = set()
    for name in ("docker-compose.yml", *files):
        text = (
            (ROOT / name).read_text(encoding="utf-8").replace("!reset", "").replace("!override", "")
        )
        found |= set(yaml.safe_load(text).get("services", {}))
    return frozenset(found)
