"""Every form of a report says the same: each is parsed and compared with the JSON."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.api.schema_pages import (
    alignment_schema,
    evaluation_schema,
    frontier_schema,
    report_schema,
    salora_schema,
)
from app.jobs.measured_tables import with_interval
from app.jobs.render import FORMATS, number
from tests.jobs.every_report import every
from tests.jobs.test_measured_pages import Balance

REPORTS = every()
SCHEMAS = {
    "alignment": alignment_schema,
    "evaluate": evaluation_schema,
    "frontier": frontier_schema,
    "patch": report_schema,
    "score": report_schema,
}
HEADINGS = {
    "retained energy": "retained_energy",
    "update norm": "update_norm",
    "alignment norm": "alignment_norm",
    "share in V_s": "safety_share",
    "kept as": "form",
    "bytes": "size_bytes",
}
OF_MODULES = [name for name, one in REPORTS.items() if "layers" in one or "modules" in one]
OF_ANSWERS = ["evaluation", "losses", "gated"]


def rendered(name: str, form: str) -> str:
    return FORMATS[form][1](REPORTS[name])


class Tables(HTMLParser):
    """The cells of every table, by caption."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)


def html_tables(text: str) -> list[list[list[str]]]:
    found = Tables()
    found.feed(text)
    return found.tables


def markdown_tables(text: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [
        [_cells(line) for i, line in enumerate(block.splitlines()) if i != 1] for block in blocks
    ]


def _cells(line: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\(.)", r"\1", part.strip().strip("`")) for part in parts]


def module_rows(name: str, form: str) -> list[dict[str, str]]:
    """The table of modules of a page."""
    tables = (html_tables if form == "html" else markdown_tables)(rendered(name, form))
    table = next(table for table in tables if table[0][0] == "module")
    heads = [HEADINGS.get(head, head.replace(" ", "_")) for head in table[0]]
    return [dict(zip(heads, row, strict=True)) for row in table[1:]]


@pytest.mark.parametrize("form", ["markdown", "html"])
@pytest.mark.parametrize("name", [name for name in OF_MODULES if name != "hostile"])
def test_a_pages_table_of_modules_has_the_numbers_of_the_json(name: str, form: str) -> None:
    report = REPORTS[name]
    modules = report.get("layers") or report["modules"]
    rows = module_rows(name, form)
    assert [row["module"] for row in rows] == [each["module"] for each in modules]
    compared = 0
    for row, each in zip(rows, modules, strict=True):
        for key, said in row.items():
            value = each.get(key)
            if isinstance(value, float):
                assert said == number(value), key
                compared += 1
            elif value is None and key in ("cosine", "retained_energy", "pdst"):
                assert said == "-"
            elif isinstance(value, int):
                assert said == str(value), key
    assert compared


@pytest.mark.parametrize("name", [name for name in OF_MODULES if name != "hostile"])
def test_a_csv_has_the_very_numbers_of_the_json(name: str) -> None:
    report = REPORTS[name]
    modules = report.get("layers") or report["modules"]
    rows = list(csv.DictReader(io.StringIO(rendered(name, "csv"))))
    assert len(rows) == len(modules)
    for row, each in zip(rows, modules, strict=True):
        for key, said in row.items():
            value = each[key]
            if isinstance(value, int | float):
                assert float(said) == value, key
            elif key == "shape":
                assert said == " x ".join(map(str, value))
            else:
                assert said == (value or "")


@pytest.mark.parametrize("form", ["markdown", "html"])
@pytest.mark.parametrize("name", ["patch", "score", "what_if", "gated"])
def test_the_summary_is_the_same_on_every_page(name: str, form: str) -> None:
    summary, text = REPORTS[name]["summary"], rendered(name, form)
    said = re.sub(r"<[^>]*>|\s+", " ", text)
    assert re.search(rf"{summary['projected']} (of {summary['modules']} modules were )?proj", said)
    for key in ("mean_cosine", "mean_pdst", "median_retained_energy"):
        assert number(summary[key]) in said
    assert json.loads(rendered(name, "sarif"))["runs"][0]["properties"]["summary"] == summary


@pytest.mark.parametrize("form", ["markdown", "html"])
@pytest.mark.parametrize("name", OF_ANSWERS)
def test_every_rate_and_loss_is_the_same_on_every_page(name: str, form: str) -> None:
    report = REPORTS[name].get("evaluation") or REPORTS[name]
    text = rendered(name, form)
    for cell in report["table"]:
        assert with_interval(cell["rate"] or cell["loss"]) in text
        if cell["drift"]:
            assert number(cell["drift"]["first"]) in text


@pytest.mark.parametrize("name", ["evaluation", "losses"])
def test_every_rate_and_loss_is_the_same_in_a_csv(name: str) -> None:
    rows = list(csv.DictReader(io.StringIO(rendered(name, "csv"))))
    for row, cell in zip(rows, REPORTS[name]["table"], strict=True):
        for key, measure in (("rate", cell["rate"]), ("loss", cell["loss"])):
            assert row[key] == ("" if measure is None else str(measure["value"]))
            assert row[f"{key}_low"] == ("" if measure is None else str(measure["low"]))


@pytest.mark.parametrize("name", ["frontier", "unsatisfied"])
def test_every_setting_of_a_search_is_the_same_in_every_form(name: str) -> None:
    points = REPORTS[name]["points"]
    rows = list(csv.DictReader(io.StringIO(rendered(name, "csv"))))
    pages = [rendered(name, form) for form in ("markdown", "html")]
    for row, point in zip(rows, points, strict=True):
        for key in ("refusal", "over_refusal", "utility"):
            value = point["scores"][key]
            assert float(row[key]) == value
            if point["stage"] == "measured":
                assert all(f"{value:.3f}" in page for page in pages)


@pytest.mark.parametrize("name", [name for name in REPORTS if name != "hostile"])
def test_the_json_follows_its_schema(name: str) -> None:
    report = json.loads(rendered(name, "json"))
    schema = SCHEMAS.get(report["kind"], salora_schema)()
    Draft202012Validator(schema).validate(report)
    assert report == REPORTS[name]


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_is_well_formed_and_refers_to_nothing_outside(name: str) -> None:
    page = rendered(name, "html")
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert "None" not in page
    outside = r"src\s*=|href\s*=|url\(|@import|<script|<link|<iframe|<object|<base\b|\son\w+\s*="
    assert not re.search(outside, page, re.IGNORECASE)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", [name for name in REPORTS if "frontier" not in name])
def test_a_markdown_table_has_as_many_cells_in_each_row(name: str) -> None:
    for table in markdown_tables(rendered(name, "markdown")):
        assert len({len(row) for row in table}) == 1, table[0]


def test_hostile_names_do_nothing_in_any_form() -> None:
    page, text = rendered("hostile", "html"), rendered("hostile", "markdown")
    assert "<script" not in page
    outside_code = re.sub(r"`[^`\n]*`", "", re.sub(r"\\.", "", text))
    assert "<" not in outside_code
    assert "](" not in outside_code
    rows = list(csv.DictReader(io.StringIO(rendered("hostile", "csv"))))
    assert rows[1]["module"] == "'=cmd()"


def test_numbers_that_json_cannot_say_are_not_written() -> None:
    broken: dict[str, Any] = {**REPORTS["patch"], "summary": {"mean_cosine": float("nan")}}
    for form in ("json", "sarif"):
        with pytest.raises(ValueError, match="JSON compliant"):
            FORMATS[form][1](broken)
