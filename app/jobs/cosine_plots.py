"""The cosines of a report as drawings: a heat map by layer and kind, and a histogram.

Decisions are told by marks as well as by colour, so that a print in black and white loses nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ReportJson = Mapping[str, Any]
LayerJson = Mapping[str, Any]

MOST_KINDS, MOST_LAYERS = 48, 200  # because beyond these a cell is smaller than what one can see
NAMES, TOP, CELL_HEIGHT, WIDE = 150, 8, 18, 580  # pixels: the kinds' names, above, a row, the cells
WIDEST_CELL = 36
SCALE = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
"""From 0 to 1 (viridis, of van der Walt and Smith: its lightness grows evenly)."""
BINS = 20
BARS_LEFT, BARS_TOP, BARS_WIDE, BARS_HIGH = 56, 24, 640, 220  # pixels
TICKS = 4


@dataclass(frozen=True)
class Square:
    """One cell: the modules of one kind in one layer; of several the smallest cosine."""

    x: float
    y: float
    fill: str | None  # None: no cosine
    ink: str  # what can be seen on it
    mark: str  # "projected", "kept" or "skipped"
    said: str


@dataclass(frozen=True)
class HeatMap:
    width: float
    height: float
    cell: tuple[float, float]  # width, height
    mark: float  # half the width of a decision's mark
    squares: Sequence[Square]
    rows: Sequence[tuple[float, str]]  # pixel and kind
    columns: Sequence[tuple[float, str]]  # pixel and layer
    scale: Sequence[tuple[str, str]]  # colour and value
    description: str


@dataclass(frozen=True)
class Bar:
    x: float
    width: float
    projected: float  # heights, in pixels
    kept: float
    said: str


@dataclass(frozen=True)
class Histogram:
    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]  # of the cosine
    heights: Sequence[tuple[float, str]]  # of the count
    threshold: tuple[float, str] | None  # pixel, and what it is
    description: str


def heat_map(report: ReportJson) -> HeatMap | None:
    """None where no module has a layer, or more than can be seen."""
    groups = _groups(report["layers"])
    kinds = list(dict.fromkeys(kind for _, kind in groups))
    layers = sorted({layer for layer, _ in groups})
    if not groups or len(kinds) > MOST_KINDS or len(layers) > MOST_LAYERS:
        return None
    wide = min(WIDEST_CELL, WIDE / len(layers))
    across = {layer: round(NAMES + wide * i, 1) for i, layer in enumerate(layers)}
    down = {kind: float(TOP + CELL_HEIGHT * i) for i, kind in enumerate(kinds)}
    every = -(-len(layers) * 24 // WIDE)  # because a number takes some 24 pixels
    return HeatMap(
        width=NAMES + WIDE + 10,
        height=TOP + CELL_HEIGHT * len(kinds) + 70,
        cell=(round(wide, 1), CELL_HEIGHT),
        mark=round(min(3.0, wide / 2.5), 1),
        squares=[_square(across[at[0]], down[at[1]], at, group) for at, group in groups.items()],
        rows=[(y + 13, kind) for kind, y in down.items()],
        columns=[(round(across[n] + wide / 2, 1), str(n)) for n in layers[::every]],
        scale=[(colour, f"{i / (len(SCALE) - 1):.1f}") for i, colour in enumerate(SCALE)],
        description=_heat_said(report, kinds, layers),
    )


def histogram(report: ReportJson) -> Histogram | None:
    """None where no module has a cosine."""
    known = [layer for layer in report["layers"] if layer["cosine"] is not None]
    if not known:
        return None
    low = -1.0 if min(layer["cosine"] for layer in known) < -1e-6 else 0.0
    counts = _counts(known, low)
    most = max(sum(count) for count in counts)
    return Histogram(
        bars=[_bar(i, count, most, low) for i, count in enumerate(counts) if sum(count)],
        ticks=[_tick(low + (1 - low) * i / TICKS, low) for i in range(TICKS + 1)],
        heights=[(float(BARS_TOP + BARS_HIGH), "0"), (float(BARS_TOP), str(most))],
        threshold=_threshold(report, low),
        description=_histogram_said(report, len(known)),
    )


def _groups(layers: Sequence[LayerJson]) -> dict[tuple[int, str], list[LayerJson]]:
    found: dict[tuple[int, str], list[LayerJson]] = {}
    for layer in layers:
        if layer["layer"] is not None:
            found.setdefault((layer["layer"], layer["kind"]), []).append(layer)
    return found


def _square(x: float, y: float, at: tuple[int, str], group: Sequence[LayerJson]) -> Square:
    known = [layer["cosine"] for layer in group if layer["cosine"] is not None]
    lowest = min(known, default=None)
    decisions = [layer["decision"] for layer in group]
    mark = next(each for each in ("skipped", "projected", "kept") if each in decisions)
    said = f"layer {at[0]}, {at[1]}: " + ("no cosine" if lowest is None else f"cosine {lowest:.4g}")
    of = f", the smallest of {len(known)}" if len(known) > 1 else ""
    return Square(x, y, *_colours(lowest), mark, f"{said}{of}, {mark}")


def _colours(cosine: float | None) -> tuple[str | None, str]:
    """The fill, and black or white for a mark on it."""
    if cosine is None:
        return None, "CanvasText"
    place = min(max(cosine, 0.0), 1.0) * (len(SCALE) - 1)
    i = min(int(place), len(SCALE) - 2)
    parts = [_mixed(one, other, place - i) for one, other in zip(*_rgb(i), strict=True)]
    red, green, blue = parts
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return f"#{red:02x}{green:02x}{blue:02x}", "#000" if light > 120 else "#fff"


def _rgb(i: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    one, other = (tuple(bytes.fromhex(colour[1:])) for colour in SCALE[i : i + 2])
    return one, other


def _mixed(one: int, other: int, share: float) -> int:
    return round(one + (other - one) * share)


def _counts(known: Sequence[LayerJson], low: float) -> list[list[int]]:
    """By bin: projected, kept."""
    found = [[0, 0] for _ in range(BINS)]
    for layer in known:
        share = (min(max(layer["cosine"], low), 1.0) - low) / (1 - low)
        found[min(int(share * BINS), BINS - 1)][layer["decision"] != "projected"] += 1
    return found


def _bar(i: int, count: Sequence[int], most: int, low: float) -> Bar:
    wide = BARS_WIDE / BINS
    edges = [low + (1 - low) * edge / BINS for edge in (i, i + 1)]
    said = f"cosine {edges[0]:.2f} to {edges[1]:.2f}: {count[0]} projected, {count[1]} kept"
    projected, kept = (round(BARS_HIGH * each / most, 1) for each in count)
    return Bar(round(BARS_LEFT + wide * i, 1), round(wide - 2, 1), projected, kept, said)


def _tick(cosine: float, low: float) -> tuple[float, str]:
    return _across(cosine, low), f"{cosine:.2f}"


def _across(cosine: float, low: float) -> float:
    return round(BARS_LEFT + BARS_WIDE * (min(max(cosine, low), 1.0) - low) / (1 - low), 1)


def _threshold(report: ReportJson, low: float) -> tuple[float, str] | None:
    """Without one the largest cosine that was projected: a threshold that does the same."""
    value = report["summary"]["threshold"]
    if value is None:
        return None
    given = report["method"]["select"]["by"] == "threshold"
    return _across(
        value, low
    ), f"threshold {value:.4g}" if given else f"projected up to {value:.4g}"


def _heat_said(report: ReportJson, kinds: Sequence[str], layers: Sequence[int]) -> str:
    beyond = sum(layer["layer"] is None for layer in report["layers"])
    more = f" {beyond} modules outside the layers are in the table alone." if beyond else ""
    return (
        f"Cosines by layer ({layers[0]} to {layers[-1]}) and kind of module ({len(kinds)}). A dot "
        f"marks what was projected, a cross what was skipped.{more}"
    )


def _histogram_said(report: ReportJson, known: int) -> str:
    summary = report["summary"]
    return (
        f"Cosines of {known} modules: {summary['projected']} projected (filled), "
        f"{summary['kept']} kept (hollow). {summary['skipped']} have none."
    )


def decision_marks(squares: Sequence[Square], cell: tuple[float, float]) -> Iterator[Square]:
    """Those with a mark, moved to their cells' middles."""
    for square in squares:
        if square.mark != "kept":
            x, y = round(square.x + cell[0] / 2, 1), round(square.y + cell[1] / 2, 1)
            yield Square(x, y, square.fill, square.ink, square.mark, square.said)
