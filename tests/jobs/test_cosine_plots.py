"""The drawings of a report's cosines: every module is in them, and nothing lies outside."""

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from app.jobs.cosine_plots import (
    BARS_HIGH,
    BARS_LEFT,
    BARS_WIDE,
    MOST_KINDS,
    NAMES,
    WIDE,
    heat_map,
    histogram,
)
from app.jobs.render import FORMATS
from tests.jobs.every_report import every, patched, plain

REPORT = plain(patched())


def drawings(report: dict[str, Any]) -> list[ElementTree.Element]:
    found = re.findall(r'<svg class="plot".*?</svg>', FORMATS["html"][1](report), re.DOTALL)
    return [ElementTree.fromstring(svg) for svg in found]


def test_every_layer_and_kind_has_its_square_and_its_decision() -> None:
    found = heat_map(REPORT)
    assert found
    assert len(found.squares) == len(REPORT["layers"])
    by_said = {square.said: square for square in found.squares}
    for layer in REPORT["layers"]:
        cosine = layer["cosine"]
        said = "no cosine" if cosine is None else f"cosine {cosine:.4g}"
        place = f"layer {layer['layer']}, {layer['kind']}"
        square = by_said[f"{place}: {said}, {layer['decision']}"]
        assert (square.fill is None) == (cosine is None)
    assert len({(square.x, square.y) for square in found.squares}) == len(found.squares)


@pytest.mark.parametrize("layers", [1, 2, 40, 200])
def test_a_map_stays_inside_its_width(layers: int) -> None:
    found = heat_map(plain(patched(layers=layers)))
    assert found
    for square in found.squares:
        assert square.x >= NAMES
        assert square.x + found.cell[0] <= NAMES + WIDE + 1
    places = [x for x, _ in found.columns]
    assert all(b - a >= 20 for a, b in pairwise(places))


def test_of_modules_that_share_a_square_the_smallest_cosine_is_shown() -> None:
    layers = [{**each, "layer": 0, "kind": "q_proj"} for each in REPORT["layers"][:3]]
    found = heat_map({**REPORT, "layers": layers})
    assert found
    (square,) = found.squares
    assert square.said == "layer 0, q_proj: cosine 0, the smallest of 3, projected"


def test_what_is_too_much_to_see_or_in_no_layer_is_left_to_the_table() -> None:
    assert heat_map(plain(patched(layers=201))) is None
    first = REPORT["layers"][0]
    many = [{**first, "kind": f"k{i}"} for i in range(MOST_KINDS + 1)]
    assert heat_map({**REPORT, "layers": many}) is None
    none = [{**each, "layer": None} for each in REPORT["layers"]]
    assert heat_map({**REPORT, "layers": none}) is None
    assert len(drawings({**REPORT, "layers": none})) == 1
    beyond = [*REPORT["layers"], none[0]]
    found = heat_map({**REPORT, "layers": beyond})
    assert found
    assert "1 modules outside the layers" in found.description


def test_the_bars_count_every_module_that_has_a_cosine_and_stand_within() -> None:
    found = histogram(REPORT)
    assert found
    counts = [tuple(map(int, re.findall(r"(\d+) (?:projected|kept)", b.said))) for b in found.bars]
    summary = REPORT["summary"]
    assert sum(one for one, _ in counts) == summary["projected"]
    assert sum(other for _, other in counts) == summary["kept"]
    assert max(bar.projected + bar.kept for bar in found.bars) == pytest.approx(BARS_HIGH, abs=0.2)
    for bar in found.bars:
        assert BARS_LEFT <= bar.x <= bar.x + bar.width <= BARS_LEFT + BARS_WIDE


@pytest.mark.parametrize(
    ("select", "threshold", "said"),
    [
        ("threshold", 0.4, "threshold 0.4"),
        ("count", 0.37, "projected up to 0.37"),
    ],
)
def test_the_threshold_stands_where_it_is(select: str, threshold: float, said: str) -> None:
    method = {**REPORT["method"], "select": {"by": select, "value": 3}}
    summary = {**REPORT["summary"], "threshold": threshold}
    found = histogram({**REPORT, "method": method, "summary": summary})
    assert found
    assert found.threshold == (pytest.approx(BARS_LEFT + BARS_WIDE * threshold, abs=0.1), said)


def test_without_a_cosine_or_a_threshold_there_is_less_to_draw() -> None:
    none = [{**each, "cosine": None, "decision": "skipped"} for each in REPORT["layers"]]
    assert histogram({**REPORT, "layers": none}) is None
    nothing = {**REPORT, "summary": {**REPORT["summary"], "threshold": None}}
    found = histogram(nothing)
    assert found
    assert found.threshold is None


def test_cosines_below_zero_have_room() -> None:
    layers = [{**REPORT["layers"][0], "cosine": -0.5}, REPORT["layers"][1]]
    found = histogram({**REPORT, "layers": layers})
    assert found
    assert [said for _, said in found.ticks] == ["-1.00", "-0.50", "0.00", "0.50", "1.00"]


@pytest.mark.parametrize(("name", "count"), [("patch", 2), ("gated", 2), ("frontier", 1)])
def test_a_page_has_its_drawings_with_a_title_and_a_description(name: str, count: int) -> None:
    found = drawings(every()[name])
    assert len(found) == count
    for svg in found:
        assert [child.tag for child in svg][:2] == ["title", "desc"]
        assert svg.get("role") == "img"
