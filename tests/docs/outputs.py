"""What a page shows, against what was printed."""

import math
import re

TOLERANCE = 0.02  # of numbers with a point: another processor rounds a training otherwise
NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")
SPACES = re.compile(r"[ \t]+")


def alike(shown: str, printed: str) -> bool:
    """Line by line, but for white space; `...` alone is any lines, in a line any text."""
    return _lines(_plain(shown), _plain(printed))


def _plain(text: str) -> list[str]:
    lines = [SPACES.sub(" ", line).strip() for line in text.splitlines()]
    return [line for line in lines if line]


def _lines(shown: list[str], printed: list[str]) -> bool:
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(_lines(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and _line(shown[0], printed[0]) and _lines(shown[1:], printed[1:])


def _line(shown: str, printed: str) -> bool:
    """Numbers with a point within TOLERANCE, everything else as it stands."""
    parts = [re.escape(part).replace(r"\.\.\.", ".*") for part in NUMBER.split(shown)]
    found = re.fullmatch(f"({NUMBER.pattern})".join(parts), printed)
    if found is None:
        return False
    pairs = zip(NUMBER.findall(shown), found.groups(), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=TOLERANCE, abs_tol=1e-9) for a, b in pairs)
