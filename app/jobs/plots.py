"""Curves as SVG points, for pages that need nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 160  # of the plotted area, in the page's pixels
MOST_POINTS = 640  # because a pixel shows no more


@dataclass(frozen=True)
class Curve:
    """One series over steps."""

    points: str  # SVG's: "x,y x,y ..."
    lowest: float
    highest: float
    first: int  # step
    last: int


def curve(steps: Sequence[int], values: Sequence[float]) -> Curve:
    """Scaled to the plotted area; of very many points every n-th, and the last. Raises ValueError
    for none."""
    low, high = min(values), max(values)
    every = max(1, -(-len(values) // MOST_POINTS))
    chosen = [*range(0, len(values) - 1, every), len(values) - 1]
    span = max(1, steps[-1] - steps[0])
    points = " ".join(
        f"{WIDTH * (steps[i] - steps[0]) / span:.1f},{_height(values[i], low, high):.1f}"
        for i in chosen
    )
    return Curve(points, low, high, steps[0], steps[-1])


def _height(value: float, low: float, high: float) -> float:
    """SVG's y grows downwards; a curve that never changes lies in the middle."""
    return HEIGHT / 2 if high == low else HEIGHT * (high - value) / (high - low)
