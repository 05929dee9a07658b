"""What is depended on may be depended on."""

import pytest

from tests.release.licences import PAGE, Licensed, needed, page


@pytest.mark.parametrize("package", needed(), ids=lambda package: package.name)
def test_the_licence_is_one_that_apache_software_may_depend_on(package: Licensed) -> None:
    assert package.allowed, package.licence


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-2.0 OR MIT", True),
        ("none said", False),
    ],
)
def test_one_that_may_not_is_told(licence: str, allowed: bool) -> None:
    assert Licensed("a", "1", licence).allowed is allowed


def test_the_page_lists_them() -> None:
    """If this fails: `make licences`."""
    assert PAGE.read_text(encoding="utf-8") == page()
