"""The operator's checklist: nothing is claimed without a proof, and each proof is there."""

import re
from functools import cache
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify

from app.config import Settings
from tests.docs.looks import targets
from tests.docs.site import DOCS, ROOT

PAGE = DOCS / "checklist.md"
LINK = re.compile(r"\[[^\]]*\]\((?P<to>[^)#]+)(?:#(?P<anchor>[^)]+))?\)")
TARGET = re.compile(r"`make (?P<name>[a-z-]+)`")
SETTING = re.compile(r"`ADAPTER_SAFETY_(?P<name>[A-Z_]+)`")
HEADING = re.compile(r"^#+ (?P<title>.*)$", re.MULTILINE)
LINES = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("- ")]


@cache
def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    return {slugify(found["title"].replace("`", ""), "-") for found in HEADING.finditer(text)}


def test_there_is_a_checklist() -> None:
    assert len(LINES) > 20


@pytest.mark.parametrize("line", LINES)
def test_the_line_leads_to_what_proves_it(line: str) -> None:
    assert line.startswith("- [ ] ")
    links, made = list(LINK.finditer(line)), list(TARGET.finditer(line))
    assert links or made, "no proof"
    for link in links:
        path = (DOCS / link["to"]).resolve()
        assert path.is_relative_to(ROOT)
        assert path.is_file(), link["to"]
        assert link["anchor"] is None or link["anchor"] in anchors(path), link[0]
    for target in made:
        assert target["name"] in targets(), target[0]


@pytest.mark.parametrize("line", LINES)
def test_the_settings_that_the_line_names_are_there(line: str) -> None:
    for found in SETTING.finditer(line):
        assert found["name"].lower() in Settings.model_fields, found[0]
