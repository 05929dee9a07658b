"""`--report FILE`: the report in the form that the file's name asks for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.domain.errors import InvalidField
from app.jobs.render import FORMATS

SUFFIXES = {
    ".json": "json",
    ".csv": "csv",
    ".md": "markdown",
    ".html": "html",
    ".sarif": "sarif",
}


def check_report(path: Path | None) -> None:
    """Before any work. Raises InvalidField."""
    check_parent(path, "report")
    if path and path.suffix not in SUFFIXES:
        raise InvalidField(field="report", reason=f"must end with one of {', '.join(SUFFIXES)}")


def check_parent(path: Path | None, field: str) -> None:
    """Raises InvalidField where the file's folder is not there."""
    if path and not path.absolute().parent.is_dir():
        reason = f"there is no folder {path.absolute().parent}"
        raise InvalidField(field=field, reason=reason)


def write_report(report: Mapping[str, Any], path: Path | None) -> None:
    if path:
        _, render = FORMATS[SUFFIXES[path.suffix]]
        path.write_bytes(render(report).encode())


def write_forms(report: Mapping[str, Any], folder: Path) -> None:
    """As JSON, Markdown and HTML, named by the report's kind."""
    for suffix in (".json", ".md", ".html"):
        write_report(report, folder / f"{report['kind']}{suffix}")
