"""Which modules are projected, from their cosines alone: instant, and easy to ask again."""

import math
from collections.abc import Sequence
from fractions import Fraction

from app.domain.method import Selection


def select(cosines: Sequence[float], selection: Selection) -> frozenset[int]:
    """Indexes into `cosines` (in module order) of the modules to project.

    Modules are taken in the order of their cosines, smallest first; equal cosines go by module
    order. So the sets are nested, and `count` takes exactly that many (all, if there are fewer).
    """
    if selection.by == "threshold":
        return frozenset(i for i, cosine in enumerate(cosines) if cosine <= _value(selection))
    order = sorted(range(len(cosines)), key=lambda i: (cosines[i], i))
    return frozenset(order[: _wanted(selection, len(cosines))])


def _wanted(selection: Selection, modules: int) -> int:
    if selection.by == "all":
        return modules
    if selection.by == "count":
        return int(_value(selection))
    # Decimal text, because 0.1 of 30 modules is 3, and binary 0.1 times 30 is a little more.
    return math.ceil(Fraction(str(_value(selection))) * modules)


def _value(selection: Selection) -> float:
    if selection.value is None:
        raise ValueError(f"a selection by {selection.by} has a value")
    return selection.value
