"""Reports of evaluations and frontiers in every form: nothing missing, nothing unescaped."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from app.jobs.frontier_plot import FAMILY_SHAPES, frontier_plot
from app.jobs.render import FORMATS
from app.jobs.scatter import BOTTOM, LEFT, RIGHT, SHAPES, TOP
from tests.jobs.measured_reports import FORMULA, HOSTILE, evaluation, frontier

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br"}
KNOWN = (evaluation(), evaluation(by_loss=True), frontier(), frontier(satisfied=False))


def rendered(report: Any, form: str) -> str:
    return FORMATS[form][1](json.loads(json.dumps(report.as_json())))


def table(report: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(rendered(report, "csv"))))


def plot_of(page: str) -> ElementTree.Element:
    found = re.search(r'<svg class="plot".*?</svg>', page, re.DOTALL)
    assert found
    return ElementTree.fromstring(found[0].replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


class Balance(HTMLParser):
    """Fails where a tag is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("report", KNOWN, ids=lambda report: report.kind)
def test_a_page_is_well_formed_whole_and_needs_nothing_else(report: Any) -> None:
    page = rendered(report, "html")
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert "None" not in page
    assert not re.search(r"src=|href=|url\(|@import|<script|<link", page)
    for warning in report.warnings:
        assert page.index(warning) < page.index("<table")  # because they come first


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_an_evaluation_says_each_rate_with_its_interval_and_count(form: str) -> None:
    page = rendered(evaluation(), form)
    for said in ("0.950 [0.895, 0.977]", "114 of 120 refused", "181 of 200 right", "0.22"):
        assert said in page
    for said in ("patched refuses more of the 120 harmful prompts", "chat template", "ab" * 32):
        assert said in page
    for name in ("max_new_tokens", "org/tiny-chat", "transformers", "a" * 64, "b" * 64, "c" * 64):
        assert name in page.replace("\\", "")


def test_an_evaluations_rows_are_its_cells() -> None:
    rows = table(evaluation())
    assert [(r["subject"], r["role"]) for r in rows] == [
        (subject, role)
        for subject in ("chat", "original", "patched")
        for role in ("harmful", "benign", "task")
    ]
    patched = next(r for r in rows if (r["subject"], r["role"]) == ("patched", "harmful"))
    assert (patched["count"], patched["n"], patched["rate"]) == ("114", "120", "0.95")
    assert float(patched["rate_low"]) == pytest.approx(0.8952, abs=1e-4)
    assert (patched["loss"], patched["gibberish"], patched["given_count"]) == ("", "0", "57")


def test_a_loss_has_its_mean_and_no_rate() -> None:
    report = evaluation(by_loss=True)
    row = next(r for r in table(report) if r["judge"] == "loss")
    assert (row["rate"], row["count"], row["gibberish"]) == ("", "", "")
    assert float(row["loss_low"]) < float(row["loss"]) < float(row["loss_high"])
    assert "nats a token, 60 rows" in rendered(report, "html")
    assert f"| {float(row['loss']):.3f} [" in rendered(report, "markdown")


def test_names_that_strangers_gave_are_shown_and_do_nothing() -> None:
    for report in (evaluation(HOSTILE), frontier(HOSTILE)):
        page = rendered(report, "html")
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;|*x*" in page
        text = rendered(report, "markdown")
        assert re.sub(r"\\.", "", text).count("<") == 0
        assert r"\<script\>alert\(1\)\</script\>\|\*x\*" in text
    assert table(evaluation(HOSTILE))[3]["subject"] == HOSTILE


def test_a_name_that_is_a_formula_stays_text_in_a_spreadsheet() -> None:
    assert table(evaluation(FORMULA))[3]["subject"] == f"'{FORMULA}"


def test_a_markdown_table_has_as_many_cells_in_each_row() -> None:
    for report in (*KNOWN, evaluation(HOSTILE)):
        text = re.sub(r"\\.", "", rendered(report, "markdown"))
        blocks = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
        assert len(blocks) >= 2
        for block in blocks:
            assert len({line.count("|") for line in block}) == 1
            assert set(block[1]) <= set("|-:")


def test_a_frontiers_rows_are_its_settings_and_one_is_chosen() -> None:
    report = frontier()
    rows = table(report)
    assert len(rows) == len(report.points)
    assert [i for i, r in enumerate(rows) if r["frontier"] == "True"] == list(report.frontier)
    (chosen,) = [r for r in rows if r["chosen"] == "True"]
    assert report.choice
    assert (chosen["family"], int(chosen["step"])) == (
        report.choice.point.family,
        report.choice.point.step,
    )
    assert [r["method"] for r in rows if r["default"] == "True"] == [
        "safe_lora, approximate, count 24"
    ]
    beating = [i for i, r in enumerate(rows) if r["beats_default"] == "True"]
    assert beating == list(report.dominating) != []
    assert {r["refusal_low"] for r in rows if r["stage"] == "screened"} == {""}
    assert all(
        float(r["refusal_low"]) <= float(r["refusal"]) <= float(r["refusal_high"])
        for r in rows
        if r["stage"] == "measured"
    )


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_a_frontier_says_what_to_send_and_whether_it_holds(form: str) -> None:
    report = frontier()
    assert report.choice
    page = rendered(report, form).replace("&#34;", '"')
    assert json.dumps(report.choice.patch, indent=2) in page
    assert "Chosen: complement, step 30 of 42" in page
    assert report.choice.reason[1:] in page.replace("\\", "")
    assert "beat the published default" in page
    assert "a full sweep would have measured 215" in page
    assert "held out" in page
    failed = rendered(frontier(satisfied=False), form)
    assert "Not confirmed: complement" in failed
    assert "do not hold" in failed


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_where_the_adapter_as_it_came_is_best_there_is_nothing_to_send(form: str) -> None:
    report = frontier()
    assert report.choice
    came = replace(report.choice, point=report.points[0], patch=None)
    best = replace(report, choice=came, default=0)
    page = rendered(best, form)
    assert "there is nothing to patch" in page
    assert "POST /v1/jobs" not in page
    assert form == "markdown" or "as it came, default, chosen" in page


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_frontier_without_a_choice_or_a_measured_setting_still_comes(form: str) -> None:
    points = [point for point in frontier().points if point.stage == "screened"]
    bare = replace(frontier(), choice=None, points=points, frontier=[], satisfied=False)
    bare = replace(bare, default=None, dominating=[])
    page = rendered(bare, form)
    assert '<svg class="plot"' not in page
    if form in ("html", "markdown"):
        assert "No setting was chosen." in page


def test_every_family_has_a_shape_of_its_own_and_text_is_text() -> None:
    assert len(set(FAMILY_SHAPES.values())) == len(FAMILY_SHAPES)
    assert len({outline for _, outline in SHAPES.values()}) == len(SHAPES)
    svg = plot_of(rendered(frontier(), "html"))
    assert [child.tag for child in svg][:2] == [f"{SVG}title", f"{SVG}desc"]
    texts = [found.text for found in svg.iter(f"{SVG}text")]
    for said in ("approximate", "chosen", "as it came", "the chat model", "0.2", "1.0"):
        assert said in texts
    assert any("Utility" in (said or "") for said in texts)


def test_the_drawing_has_every_measured_setting_inside_its_area() -> None:
    report = json.loads(json.dumps(frontier().as_json()))
    plot = frontier_plot(report)
    assert plot
    marks = plot.drawing.marks
    assert len(marks) == sum(p["stage"] == "measured" for p in report["points"]) + 1
    for mark in marks:
        assert LEFT <= mark.across[0] <= mark.x <= mark.across[1] <= RIGHT
        assert TOP <= mark.upright[1] <= mark.y <= mark.upright[0] <= BOTTOM
    assert sum(mark.spot.ringed for mark in marks) == 1
    assert sum(mark.spot.filled for mark in marks) == len(report["frontier"]) + 1
    assert [axis for axis, _, _ in plot.drawing.rules] == ["y", "x"]
    assert len({(label.x, label.y) for label in plot.drawing.labels}) == 4
    labels = {mark.spot.label for mark in marks} - {None}
    assert labels == {"as it came", "default", "chosen", "chat model"}


def test_the_frontiers_edge_goes_down_and_to_the_right_in_steps() -> None:
    plot = frontier_plot(frontier().as_json())
    assert plot
    places = [tuple(map(float, p.split(","))) for p in plot.drawing.stairs.split()]
    for (x, y), (next_x, next_y) in pairwise(places):
        assert x == next_x or y == next_y  # one way at a time
        assert next_x >= x
        assert next_y >= y


def test_a_utility_that_is_a_loss_is_drawn_with_more_as_better() -> None:
    report = json.loads(json.dumps(frontier().as_json()))
    for table_ in (report["original"], *(point["cells"] for point in report["points"])):
        for each in table_:
            if each["role"] == "task":
                rate = each.pop("rate")
                value = 2.5 - rate["value"]
                loss = {"value": value, "n": 200, "low": value - 0.1, "high": value + 0.2}
                each |= {"rate": None, "outcome": None, "loss": loss}
    plot = frontier_plot(report)
    assert plot
    assert "minus the mean loss" in plot.drawing.x.title
    assert 3 <= len(plot.drawing.x.ticks) <= 8
    assert all(said.startswith("-") for _, said in plot.drawing.x.ticks)
    chat = next(mark for mark in plot.drawing.marks if mark.spot.label == "chat model")
    came = next(mark for mark in plot.drawing.marks if mark.spot.label == "as it came")
    assert chat.x < came.x  # as the chat model has the larger loss
    ElementTree.fromstring(
        re.findall(r'<svg class="plot".*?</svg>', FORMATS["html"][1](report), re.DOTALL)[0]
    )


def test_one_setting_alone_can_be_drawn() -> None:
    report = frontier().as_json()
    only = {**report, "points": [report["points"][0]], "frontier": [0], "original": []}
    only |= {"choice": None, "settings": {}, "default": None, "dominating": []}
    plot = frontier_plot(only)
    assert plot
    assert len(plot.drawing.marks) == 1
    assert " " not in plot.drawing.stairs
