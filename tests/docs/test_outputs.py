"""Shown and printed text are compared as a reader would."""

import pytest

from tests.docs.outputs import alike


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a  b\n", "a b\n\n"),
        ("a\n...\nz\n", "a\nb\nc\nz\n"),
        ("...\n", ""),
        ("cosine 0.3339 of 12\n", "cosine 0.3341 of 12\n"),
        ("id ... kept\n", "id 5f70 was kept\n"),
        ("layers.0.mlp 1 kept\n", "layers.0.mlp 1.001 kept\n"),
        ("layers.0.mlp 1.001 kept\n", "layers.0.mlp 1 kept\n"),
    ],
)
def test_what_may_differ_does(shown: str, printed: str) -> None:
    assert alike(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a b\n", "a c\n"),
        ("a\nz\n", "a\nb\nz\n"),
        ("a\n", "a\nb\n"),
        ("cosine 0.3339\n", "cosine 0.4339\n"),
        ("12 modules\n", "13 modules\n"),
        ("1000 rows\n", "1001 rows\n"),
        ("layers.0.mlp\n", "layers.1.mlp\n"),
        ("update 2\n", "update 1.001\n"),
        ("5f70\n", "5f71\n"),
        ("", "a\n"),
    ],
)
def test_what_may_not_does_not(shown: str, printed: str) -> None:
    assert not alike(shown, printed)
