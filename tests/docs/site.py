"""The documentation site, built as `make docs` builds it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOP = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "DECISIONS.md")


def configuration() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return found


def in_navigation(entries: Any) -> Iterator[str]:
    """Every page of a part of `nav`."""
    if isinstance(entries, str):
        yield entries
    elif isinstance(entries, dict):
        for below in entries.values():
            yield from in_navigation(below)
    else:
        for entry in entries:
            yield from in_navigation(entry)


def pages() -> list[Path]:
    """Whatever a reader reads: docs/ and the pages at the top."""
    return [*(ROOT / name for name in TOP), *sorted(DOCS.rglob("*.md"))]


def build(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
