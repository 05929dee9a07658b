"""When two reports say the same, whichever way their jobs went."""

from typing import Any

import pytest

TOLERANCE = 1e-6  # because jobs may go together, and products of other widths round otherwise


def wherever_from(report: dict[str, Any]) -> dict[str, Any]:
    """The report without what differs where one job uses what another has computed."""
    for layer in report["layers"]:
        assert layer.pop("alignment") in ("computed", "cache")
    return report


def assert_alike(one: Any, other: Any) -> None:
    """Equal, numbers within the tolerance; reasons aside, which quote a number's last digit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"reason"}:
            assert_alike(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_alike(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=TOLERANCE, abs=TOLERANCE)
    else:
        assert one == other
