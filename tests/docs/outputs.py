"""What a page shows, against what was printed."""

import math
import re

TOLERANCE = 0.02  # of numbers with a point: another processor rounds a training otherwise
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
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
    """Numbers within TOLERANCE where one has a point, everything else as it stands."""
    parts = [re.escape(part).replace(r"\.\.\.", ".*") for part in NUMBER.split(shown)]
    found = re.fullmatch(f"({NUMBER.pattern})".join(parts), printed)
    if found is None:
        return False
    return all(map(_number, NUMBER.findall(shown), found.groups()))


def _number(shown: str, printed: str) -> bool:
    """1.001 is alike 1, which may be 0.9998 rounded; 2 is not alike 1."""
    is_measured = "." in shown + printed
    close = math.isclose(float(shown), float(printed), rel_tol=TOLERANCE, abs_tol=1e-9)
    return shown == printed or (is_measured and close)
