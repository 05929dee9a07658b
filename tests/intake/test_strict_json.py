import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.intake.strict_json import parse_json


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a": 1, "a": 2}', "duplicate key a"),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', "duplicate key a"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e999]", "out of range"),
        (b"[-0]", "out of range"),
        (b"[" + b"9" * 5000 + b"]", "out of range"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\uDfff": 1}', "surrogate"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b"[" * 40 + b"]" * 40, "nested"),
        (b'["\xff"]', "utf-8"),
        (b"\xef\xbb\xbf{}", "Expecting value"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b'["a\nb"]', "control character"),
    ],
)
def test_what_parsers_read_differently_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(raw, depth=32)


def test_a_surrogate_pair_is_a_character() -> None:
    assert parse_json(b'"\\ud83d\\ude00"', depth=1) == "\U0001f600"


def test_nesting_up_to_the_limit_is_read() -> None:
    assert parse_json(b"[[[1]]]", depth=3) == [[[1]]]
    with pytest.raises(ValueError, match="deeper than 2"):
        parse_json(b"[[[1]]]", depth=2)


@settings(deadline=None)  # because the machine is shared
@given(raw=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_random_bytes_raise_nothing_but_value_errors(raw: bytes) -> None:
    try:
        value = parse_json(raw, depth=4)
    except ValueError:
        return
    assert json.loads(raw) == value


@settings(deadline=None)  # because the machine is shared
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_as_they_went(number: float) -> None:
    found = parse_json(json.dumps(number).encode(), depth=1)
    assert isinstance(found, float)
    assert math.copysign(1, found) == math.copysign(1, number)
    assert found == number
