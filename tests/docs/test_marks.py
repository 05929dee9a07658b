"""How the tests of the pages read a page."""

from pathlib import Path

import pytest

from tests.docs.blocks import Block, NotAMark, blocks


def read(folder: Path, text: str) -> list[Block]:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return blocks(page)


def test_a_block_without_a_language_is_neither_run_nor_excused(tmp_path: Path) -> None:
    (block,) = read(tmp_path, "```\nls\n```\n")
    assert not block.is_known


@pytest.mark.parametrize("language", ["text", "console", "promql"])
def test_what_cannot_be_run_needs_a_reason(tmp_path: Path, language: str) -> None:
    bare, excused = read(
        tmp_path, f"```{language}\nx\n```\n\n<!-- not run: why -->\n```{language}\nx\n```\n"
    )
    assert not bare.is_known
    assert excused.is_known
    assert (excused.is_run, excused.reason) == (False, "why")


def test_a_reason_has_words(tmp_path: Path) -> None:
    (block,) = read(tmp_path, "<!-- not run:  -->\n```text\nx\n```\n")
    assert not block.is_known


def test_marks_are_of_the_block_below_them_and_no_other(tmp_path: Path) -> None:
    first, second = read(
        tmp_path, "<!-- exit: 0 or 1 -->\n<!-- file: a -->\n```sh\nx\n```\n\n```sh\ny\n```\n"
    )
    assert first.exits == {0, 1}
    assert first.marks["file"] == "a"
    assert second.marks == {}
    assert (first.line, second.line) == (3, 7)


def test_a_mark_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotAMark):
        read(tmp_path, "<!-- skip: it -->\n```sh\nx\n```\n")


def test_a_block_in_a_list_is_found_without_its_indent(tmp_path: Path) -> None:
    (block,) = read(tmp_path, "- a\n\n  ```sh\n  if x; then\n    y\n  fi\n  ```\n")
    assert block.text == "if x; then\n  y\nfi\n"
