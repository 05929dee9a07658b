"""The reference is made from the code, and is what the code says today."""

import pytest

from tests.docs.reference.pages import FOLDER, PAGES
from tests.release.licences import PAGE as LICENCES


@pytest.mark.parametrize("name", PAGES)
def test_the_page_says_what_the_code_says(name: str) -> None:
    """If this fails: `make reference`."""
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name]()


def test_nothing_else_lies_beside_them_but_what_other_tests_compare() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*PAGES, LICENCES.name}
