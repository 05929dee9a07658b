"""Reports as SARIF 2.1.0.

`sarif_subset.json` says, closed, what of the standard is written; what a schema cannot say is here.
The standard's own schema: test_sarif_standard.py.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.domain.method import Method, Selection
from app.jobs.decide import decided
from app.jobs.render import FORMATS
from app.jobs.sarif import plain_message, sarif
from app.jobs.sarif_rules import RULES
from tests.jobs.every_report import every, patched, plain

SCHEMA = json.loads((Path(__file__).parent / "sarif_subset.json").read_text())
REPORTS = every()
LINK = re.compile(r"(?<!\\)(\\\\)*\[[^\]]*(?<!\\)(\\\\)*\]\(")


def run_of(report: dict[str, Any]) -> dict[str, Any]:
    (found,) = json.loads(FORMATS["sarif"][1](report))["runs"]
    assert isinstance(found, dict)
    return found


def by_rule(report: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rule = next(rule for rule in RULES if rule.name == name)
    return [result for result in run_of(report)["results"] if result["ruleId"] == rule.id]


@pytest.mark.parametrize("name", REPORTS)
def test_a_log_of_every_kind_follows_the_schema_of_what_is_used(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(json.loads(FORMATS["sarif"][1](REPORTS[name])))


@pytest.mark.parametrize("name", REPORTS)
def test_what_refers_to_something_refers_to_what_is_there(name: str) -> None:
    run = run_of(REPORTS[name])
    rules, files = run["tool"]["driver"]["rules"], run["artifacts"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        for location in result["locations"]:
            named = location["physicalLocation"]["artifactLocation"]
            assert files[named["index"]]["location"]["uri"] == named["uri"]
    prints = [each["partialFingerprints"]["primaryLocationLineHash"] for each in run["results"]]
    assert len(set(prints)) == len(prints)


def test_the_rules_ids_and_names_are_a_contract() -> None:
    assert {rule.id: rule.name for rule in RULES} == {
        "ASF001": "ModuleProjected",
        "ASF002": "ModuleSkipped",
        "ASF003": "UnscreenedPart",
        "ASF004": "ReportWarning",
        "ASF005": "EvaluationWorse",
        "ASF006": "VerdictReview",
        "ASF007": "ConstraintsNotHeld",
        "ASF008": "AlignmentNotKept",
    }
    assert all(rule.help.endswith(".") and rule.full.endswith(".") for rule in RULES)


def test_each_module_that_is_projected_or_skipped_is_one_result_with_its_numbers() -> None:
    report = REPORTS["patch"]
    found = by_rule(report, "ModuleProjected") + by_rule(report, "ModuleSkipped")
    told = {r["locations"][0]["logicalLocations"][0]["fullyQualifiedName"]: r for r in found}
    expected = {each["module"]: each for each in report["layers"] if each["decision"] != "kept"}
    assert told.keys() == expected.keys()
    for name, result in told.items():
        for measure in ("cosine", "retained_energy", "update_norm", "alignment_norm", "pdst"):
            assert result["properties"].get(measure) == expected[name][measure]
    assert {result["level"] for result in by_rule(report, "ModuleProjected")} == {"note"}
    assert {result["level"] for result in by_rule(report, "ModuleSkipped")} == {"warning"}


@pytest.mark.parametrize("name", ["score", "what_if"])
def test_where_nothing_was_written_a_module_below_the_threshold_is_a_warning(name: str) -> None:
    found = by_rule(REPORTS[name], "ModuleProjected")
    assert found
    assert {result["level"] for result in found} == {"warning"}
    assert all("would be projected" in result["message"]["text"] for result in found)


def test_verdict_parts_warnings_and_what_got_worse_are_results_of_their_own() -> None:
    report = REPORTS["gated"]
    (verdict,) = by_rule(report, "VerdictReview")
    (part,) = by_rule(report, "UnscreenedPart")
    assert (verdict["level"], part["level"]) == ("error", "warning")
    assert part["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == "lm_head.weight"
    warnings = [*report["warnings"], *report["evaluation"]["warnings"]]
    assert len(by_rule(report, "ReportWarning")) == len(warnings)
    worse = [c for c in report["evaluation"]["comparisons"] if c["verdict"] == "worse"]
    found = by_rule(report, "EvaluationWorse")
    assert [r["properties"]["p_value"] for r in found] == [c["p_value"] for c in worse] != []
    assert {r["level"] for r in found} == {"error"}


def test_a_search_that_holds_nothing_is_an_error_and_one_that_does_is_none() -> None:
    assert len(by_rule(REPORTS["unsatisfied"], "ConstraintsNotHeld")) == 1
    assert by_rule(REPORTS["frontier"], "ConstraintsNotHeld") == []


def test_the_run_says_which_tool_adapter_and_models() -> None:
    report, run = REPORTS["patch"], run_of(REPORTS["patch"])
    assert run["tool"]["driver"]["version"] == report["versions"]["adapter-safety"]
    for name in ("adapter", "base_model", "chat_model", "summary", "method", "verdict"):
        assert run["properties"][name] == report[name]
    assert run["automationDetails"]["id"] == "adapter-safety/patch/"


def test_a_new_run_with_other_numbers_has_the_same_fingerprints() -> None:
    one = patched()
    layers = [replace(each, retained_energy=0.02) if each.cosine else each for each in one.layers]
    other = decided(replace(one, layers=layers), Method(select=Selection("threshold", 0.4)))
    assert one.warnings != other.warnings
    prints = [
        {
            r["partialFingerprints"]["primaryLocationLineHash"]
            for r in run_of(plain(each))["results"]
        }
        for each in (one, other)
    ]
    assert prints[0] == prints[1]


def test_names_of_strangers_are_no_links_no_placeholders_and_nothing_unprintable() -> None:
    for result in sarif(REPORTS["hostile"])["runs"][0]["results"]:
        text = result["message"]["text"]
        assert not LINK.search(text)
        assert not re.search(r"(?<!\{)\{(?:\{\{)*[0-9]", text)
        assert text.isprintable()
        for place in result["locations"][0].get("logicalLocations", []):
            assert place["fullyQualifiedName"].isprintable()
    assert plain_message(r"[a](b)\[{0}") == r"\[a\](b)\\\[{{0}}"


def test_what_names_a_link_is_found_by_this_test() -> None:
    assert LINK.search("see [a](b)")
    assert LINK.search(r"see \\[a](b)")
    assert not LINK.search(r"see \[a\](b)")
