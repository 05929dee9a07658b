"""The page that users read is made from the rows that are tested."""

from tests.workers.kinds_page import PAGE, page


def test_the_page_of_adapter_kinds_is_current() -> None:
    """If this fails: `python -m tests.workers.kinds_page`."""
    assert PAGE.read_text(encoding="utf-8") == page()
