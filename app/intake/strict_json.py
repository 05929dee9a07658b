"""JSON without its ambiguities: what two parsers could read differently is refused.

Refused on top of RFC 8259: duplicate keys (the last wins here, the first elsewhere), `NaN` and
`Infinity`, numbers beyond 64 bits or beyond a double, `-0`, lone surrogates, deep nesting.
"""

import json
import math
from typing import NoReturn

from app.intake.names import shown

MAX_INT_DIGITS = 20  # because 2**64 has 20 digits, and Python's int() is slow on thousands


def parse_json(raw: bytes, *, depth: int) -> object:
    """The value of a UTF-8 JSON text, nested at most `depth` levels.

    Raises ValueError whose text is the reason, fit for a message.
    """
    text = raw.decode("utf-8")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {depth} levels") from None
    _check_depth(value, depth)
    if b"\\ud" in raw.lower():  # because only an escape can bring a surrogate in
        _check_surrogates(value)
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {shown(key)[:100]}")
        found[key] = value
    return found


def _int(literal: str) -> int:
    if len(literal) > MAX_INT_DIGITS or literal == "-0":
        raise ValueError(f"the number {literal[:30]} is out of range")
    return int(literal)


def _float(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"the number {literal[:30]} is out of range")
    return value


def _constant(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_int, parse_float=_float, parse_constant=_constant
)


def _check_depth(value: object, depth: int) -> None:
    """Walk level by level, not by recursion, so that no depth can exhaust the stack."""
    level = [value]
    for _ in range(depth + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise ValueError(f"nested deeper than {depth} levels")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a string holds a lone surrogate") from None
