"""The fenced blocks of a page, and the marks in the comments right above them.

A block is run unless a mark says otherwise:

`<!-- not run: why -->`        looked at, not run; the reason is printed with the test's summary
`<!-- file: NAME -->`          written into the page's folder under that name
`<!-- output -->`              what the block before it prints; `...` stands for anything
`<!-- exit: 1 -->`             how the block ends, else with 0; `0 or 1`
`<!-- until stopped -->`       a service: started, waited for until it is ready, and stopped
`<!-- schema: NAME -->`        what the data in it has to follow (`tests/docs/data.py`)
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = ("sh", "bash")
DATA = ("json", "yaml", "toml", "csv")
MARKS = ("not run", "file", "output", "exit", "until stopped", "schema")
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>.*)$")
MARK = re.compile(r"^ *<!-- (?P<name>[a-z ]+?)(?:: (?P<value>.*?))? -->$")


class NotAMark(ValueError):
    """A comment above a block that the tests do not understand."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int  # of its fence, from 1
    language: str
    text: str
    marks: Mapping[str, str]

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def reason(self) -> str | None:
        """Why it is not run."""
        return self.marks.get("not run")

    @property
    def is_script(self) -> bool:
        return self.language in SCRIPTS

    @property
    def is_run(self) -> bool:
        """Run, written into the page's folder, or compared with what was printed."""
        if self.reason is not None:
            return False
        runs = self.is_script or self.language == "python"
        return runs or "output" in self.marks or "file" in self.marks

    @property
    def is_known(self) -> bool:
        """Whether the tests do anything with it."""
        return self.is_run or self.language in DATA or bool(self.reason)

    @property
    def exits(self) -> set[int]:
        return {int(code) for code in self.marks.get("exit", "0").split(" or ")}


def blocks(page: Path) -> list[Block]:
    return list(_found(page, page.read_text(encoding="utf-8").splitlines()))


def _found(page: Path, lines: list[str]) -> Iterator[Block]:
    at = 0
    while at < len(lines):
        opened = FENCE.match(lines[at])
        if opened is None:
            at += 1
            continue
        end = _closing(lines, at + 1, opened["fence"])
        inside = [line.removeprefix(opened["indent"]) for line in lines[at + 1 : end]]
        text = "".join(f"{line}\n" for line in inside)
        language = opened["language"].split("{")[0].split(" ")[0].strip()
        yield Block(page, at + 1, language, text, _marks(lines, at))
        at = end + 1


def _closing(lines: list[str], at: int, fence: str) -> int:
    while lines[at].strip() != fence:
        at += 1
    return at


def _marks(lines: list[str], fence: int) -> dict[str, str]:
    """Of the comments above, with at most one empty line between them and the block."""
    found: dict[str, str] = {}
    at = fence - 1
    if at >= 0 and not lines[at].strip():
        at -= 1
    while at >= 0 and (mark := MARK.match(lines[at])):
        if mark["name"] not in MARKS:
            raise NotAMark(lines[at])
        found[mark["name"]] = mark["value"] or ""
        at -= 1
    return found
