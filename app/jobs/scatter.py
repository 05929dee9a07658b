"""Points of two measures as an SVG's coordinates, for pages that need nothing else.

Told apart by shape as well as colour, and by being filled or hollow, so that a print in black and
white, and eyes that see fewer colours (Okabe and Ito 2008), lose nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

WIDTH, HEIGHT = 760, 440  # of the whole drawing, in the page's pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 560, 20, 380  # of the plotted area
LETTER = 7.2  # pixels a letter takes at most, on average, at the labels' size
LINE = 14  # pixels
RADIUS, RING = 7, 12  # pixels
TICKS = 5

Box = tuple[float, float, float, float]  # left, top, right, bottom

SHAPES: Mapping[str, tuple[str, str]] = {
    "circle": ("#0072b2", "M-5.5 0A5.5 5.5 0 1 0 5.5 0A5.5 5.5 0 1 0 -5.5 0Z"),
    "square": ("#d55e00", "M-5 -5H5V5H-5Z"),
    "triangle": ("#009e73", "M0 -6.5L6 5H-6Z"),
    "diamond": ("#cc79a7", "M0 -7L7 0L0 7L-7 0Z"),
    "wedge": ("#8a7400", "M0 6.5L6 -5H-6Z"),
    "plus": ("#56b4e9", "M-2 -6.5H2V-2H6.5V2H2V6.5H-2V2H-6.5V-2H-2Z"),
    "saltire": ("currentColor", "M-6 -6L6 6M-6 6L6 -6"),
    "star": (
        "currentColor",
        "M0 -8L1.9 -2.6L7.6 -2.5L3 1L4.7 6.5L0 3.2L-4.7 6.5L-3 1L-7.6 -2.5L-1.9 -2.6Z",
    ),
}
"""Colour and outline around (0, 0)."""


@dataclass(frozen=True)
class Value:
    """A measure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spot:
    """What is to be drawn at one place."""

    x: Value
    y: Value
    shape: str
    said: str  # what a pointer that rests on it is told
    filled: bool = False
    ringed: bool = False
    label: str | None = None


@dataclass(frozen=True)
class Axis:
    """A measure along one side. `whole` is its range in values, `start` and `end` in pixels."""

    title: str
    whole: tuple[float, float]
    start: float
    end: float
    step: float

    def at(self, value: float) -> float:
        low, high = self.whole
        share = (min(max(value, low), high) - low) / (high - low)
        return round(self.start + (self.end - self.start) * share, 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        first = ceil(self.whole[0] / self.step - 1e-9)
        last = floor(self.whole[1] / self.step + 1e-9)
        places = max(0, -floor(log10(self.step) + 1e-9))
        values = [n * self.step for n in range(first, last + 1)]
        return [(self.at(value), f"{value + 0.0:.{places}f}") for value in values]


@dataclass(frozen=True)
class Mark:
    """One spot in pixels."""

    x: float
    y: float
    across: tuple[float, float]  # the interval of x
    upright: tuple[float, float]  # of y: the lower value's pixel first
    spot: Spot
    colour: str
    outline: str


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    anchor: str  # SVG's text-anchor
    text: str


@dataclass(frozen=True)
class Scatter:
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    labels: Sequence[Label]
    stairs: str  # SVG's points: the edge of what some setting reaches
    rules: Sequence[tuple[str, float, str]]  # "x" or "y", its pixel, what it is


def scatter(
    spots: Sequence[Spot],
    edge: Sequence[tuple[float, float]],
    bounds: Mapping[str, tuple[float, str]],
    titles: tuple[str, str],
    shares: tuple[bool, bool],
) -> Scatter:
    """`edge`: values of the settings on the frontier. `bounds`: a value by the axis ("x", "y") and
    what it is called. `shares`: which of x and y lie in [0, 1]. Raises ValueError for no spots."""
    x_seen = [v for s in spots for v in (s.x.low, s.x.high)]
    y_seen = [v for s in spots for v in (s.y.low, s.y.high)]
    x = _axis(titles[0], x_seen, (LEFT, RIGHT), share=shares[0])
    y = _axis(titles[1], y_seen, (BOTTOM, TOP), share=shares[1])
    marks = [_mark(spot, x, y) for spot in spots]
    axes = {"x": x, "y": y}
    return Scatter(
        x=x,
        y=y,
        marks=marks,
        labels=_labels(marks),
        stairs=_stairs(edge, x, y),
        rules=[(name, axes[name].at(value), said) for name, (value, said) in bounds.items()],
    )


def _axis(title: str, seen: Sequence[float], pixels: tuple[int, int], *, share: bool) -> Axis:
    if share:  # always whole, so that two drawings can be laid side by side
        return Axis(title, (-0.03, 1.03), *pixels, step=0.2)
    low, high = min(seen), max(seen)
    span = (high - low) or abs(high) or 1.0
    whole = (low - 0.08 * span, high + 0.08 * span)
    return Axis(title, whole, *pixels, step=_round_step((whole[1] - whole[0]) / TICKS))


def _round_step(wanted: float) -> float:
    """1, 2 or 5 times a power of ten, at least `wanted`."""
    power: float = 10.0 ** floor(log10(wanted))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= wanted)


def _mark(spot: Spot, x: Axis, y: Axis) -> Mark:
    colour, outline = SHAPES[spot.shape]
    return Mark(
        x=x.at(spot.x.value),
        y=y.at(spot.y.value),
        across=(x.at(spot.x.low), x.at(spot.x.high)),
        upright=(y.at(spot.y.low), y.at(spot.y.high)),
        spot=spot,
        colour=colour,
        outline=outline,
    )


def _stairs(edge: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """Down, then right: between two settings there is none, so no straight line joins them."""
    found: list[tuple[float, float]] = []
    for value_x, value_y in sorted(edge):
        place = x.at(value_x), y.at(value_y)
        if found:
            found.append((found[-1][0], place[1]))
        found.append(place)
    return " ".join(f"{across},{up}" for across, up in found)


def _labels(marks: Sequence[Mark]) -> list[Label]:
    """Each where it covers neither a mark nor another, if there is such a place."""
    taken: list[Box] = [(m.x - RADIUS, m.y - RADIUS, m.x + RADIUS, m.y + RADIUS) for m in marks]
    labels = []
    for mark in marks:
        if mark.spot.label is not None:
            label, box = _placed(mark, mark.spot.label, taken)
            labels.append(label)
            taken.append(box)
    return labels


def _placed(mark: Mark, text: str, taken: Sequence[Box]) -> tuple[Label, Box]:
    found = list(_places(mark, text))
    return min(found, key=lambda place: _overlap(place[1], taken))


def _places(mark: Mark, text: str) -> Iterable[tuple[Label, Box]]:
    """The nearest first."""
    wide = LETTER * len(text)
    beside = (RING if mark.spot.ringed else RADIUS) + 5
    for away in (0, LINE, 2 * LINE, 4 * LINE, 6 * LINE):
        for up in (-away, away) if away else (0,):
            y = mark.y + 4.5 + up
            for anchor, x, left in (
                ("start", mark.x + beside, mark.x + beside),
                ("end", mark.x - beside, mark.x - beside - wide),
                ("middle", mark.x, mark.x - wide / 2),
            ):
                box = (left, y - LINE + 2, left + wide, y + 4)
                yield Label(round(x, 1), round(y, 1), anchor, text), box


def _overlap(box: Box, taken: Sequence[Box]) -> float:
    """Square pixels that are covered twice, or lie outside the plotted area."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    outside = area - _common(box, (LEFT, TOP - 10, RIGHT, BOTTOM))
    return 10 * outside + sum(_common(box, other) for other in taken)


def _common(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
