"""One version, said alike everywhere; and a changelog that tells of it."""

import re
from datetime import date
from importlib.metadata import version

from typer.testing import CliRunner

from app import __version__
from app.cli import program
from tests.docs.reference.api_page import description
from tests.docs.site import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
RELEASE = re.compile(r"^## (?P<version>\d+\.\d+\.\d+) - (?P<day>\d{4}-\d{2}-\d{2})$", re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_command_line_the_api_and_the_package_say_it() -> None:
    assert CliRunner().invoke(program(), ["--version"]).stdout.strip() == __version__
    assert description()["info"]["version"] == __version__
    assert version("adapter-safety") == __version__


def test_it_stands_in_one_place() -> None:
    written = [path for folder in ("app", "workers") for path in (ROOT / folder).rglob("*.py")]
    written += [ROOT / "pyproject.toml", *(ROOT / "docker").iterdir()]
    found = [path for path in written if path.is_file() and f'"{__version__}"' in path.read_text()]
    assert found == [ROOT / "app" / "__init__.py"]


def test_the_changelog_has_the_form_that_it_names() -> None:
    headings = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert len(headings) - 1 == len(RELEASE.findall(CHANGELOG))
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= KINDS


def test_what_was_released_is_in_order_and_none_is_newer_than_this() -> None:
    releases = list(RELEASE.finditer(CHANGELOG))
    numbers = [tuple(map(int, found["version"].split("."))) for found in releases]
    days = [date.fromisoformat(found["day"]) for found in releases]
    assert numbers == sorted(set(numbers), reverse=True)
    assert days == sorted(days, reverse=True)
    assert not releases or releases[0]["version"] == __version__
