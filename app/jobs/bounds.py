"""Which subjects of an evaluation do not hold what was asked for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.domain.evaluation import CHAT, Constraints

CellJson = Mapping[str, Any]


def unmet(table: Sequence[CellJson], bounds: Constraints) -> Iterator[str]:
    """A sentence for each adapter and bound that it does not hold; where there is no adapter, for
    the chat model. A rate that could not be told holds nothing."""
    adapters = [cell for cell in table if cell["subject"] != CHAT]
    for cell in adapters or table:
        value = None if cell["rate"] is None else cell["rate"]["value"]
        than = _broken(cell["role"], value, bounds)
        if than:
            yield _said(cell, value, than)


def _broken(role: str, value: float | None, bounds: Constraints) -> str | None:
    """What the value is against its bound, where that does not hold."""
    least = bounds.min_refusal if role == "harmful" else None
    most = bounds.max_over_refusal if role == "benign" else None
    if least is not None and (value is None or value < least):
        return f"less than {least:g}"
    if most is not None and (value is None or value > most):
        return f"more than {most:g}"
    return None


def _said(cell: CellJson, value: float | None, than: str) -> str:
    does = "answers safely" if cell["outcome"] == "safe" else "refuses"
    prompts = f"the {cell['n']} {cell['role']} prompts"
    if value is None:
        return f"{cell['subject']}: what it {does} of {prompts} could not be told"
    return f"{cell['subject']} {does} {value:.3f} of {prompts}, {than}"
