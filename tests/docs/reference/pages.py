"""Which pages there are."""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.reference import api_page, blocks_page, cli_page, report_page, settings_page

FOLDER = Path(__file__).parents[3] / "docs" / "reference"
PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page.page,
    "report.md": report_page.page,
    "api.md": api_page.page,
    "cli.md": cli_page.page,
    "blocks.md": blocks_page.page,
}
