"""A report as SARIF 2.1.0 (OASIS, 2020), for dashboards of code scanning.

One run, one result for each finding. What GitHub asks beyond the standard is kept: a physical
location with a line in each result, and fingerprints that stay where numbers change.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from app import __version__
from app.domain.adapter import WEIGHTS_FILE
from app.jobs.findings import Finding, findings
from app.jobs.sarif_rules import INDEX, RULES

ReportJson = Mapping[str, Any]

TOOL = "adapter-safety"
VERSION = "2.1.0"
SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
FINGERPRINT = "adapterSafetyFinding/v1"
FILES: Mapping[str, str] = {
    "alignment": "model.safetensors",
    "safety_module": "safety_module.safetensors",
    "salora_init": "salora.safetensors",
}
"""What a report is about, by its kind; of any other the adapter's weights."""
FACTS = (
    "kind",
    "verdict",
    "what_if",
    "satisfied",
    "adapter",
    "base_model",
    "chat_model",
    "part",
    "method",
    "settings",
    "summary",
    "spent",
    "subjects",
    "versions",
    "claim",
    "schema_version",
)
"""What of a report the run's properties repeat, where the report has it."""


def as_sarif(report: ReportJson) -> str:
    return json.dumps(sarif(report), indent=2, allow_nan=False) + "\n"


def sarif(report: ReportJson) -> dict[str, Any]:
    """A `sarifLog`. Text of strangers holds neither links nor placeholders nor control
    characters."""
    return {"$schema": SCHEMA, "version": VERSION, "runs": [_run(report)]}


def _run(report: ReportJson) -> dict[str, Any]:
    file = FILES.get(report["kind"], WEIGHTS_FILE)
    return {
        "tool": {"driver": _driver(report)},
        "automationDetails": {"id": f"{TOOL}/{report['kind']}/"},  # the same for each new run
        "invocations": [{"executionSuccessful": True}],
        "artifacts": [{"location": {"uri": file}, "roles": ["analysisTarget"]}],
        "results": list(_results(findings(report), file)),
        "properties": {name: report[name] for name in FACTS if name in report},
    }


def _driver(report: ReportJson) -> dict[str, Any]:
    version = report["versions"].get(TOOL) or __version__
    rules = [rule.as_json() for rule in RULES]
    return {"name": TOOL, "version": version, "semanticVersion": version, "rules": rules}


def _results(found: Iterable[Finding], file: str) -> Iterable[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for finding in found:
        print_ = _fingerprint(finding)
        seen[print_] += 1
        yield _result(finding, file, f"{print_}:{seen[print_]}")


def _result(finding: Finding, file: str, fingerprint: str) -> dict[str, Any]:
    index = INDEX[finding.rule]
    return {
        "ruleId": RULES[index].id,
        "ruleIndex": index,
        "level": finding.level,
        "message": {"text": plain_message(finding.message)},
        "locations": [_location(finding, file)],
        # GitHub matches alerts by the first alone
        "partialFingerprints": {"primaryLocationLineHash": fingerprint, FINGERPRINT: fingerprint},
        "properties": {name: v for name, v in finding.facts.items() if v is not None},
    }


def _location(finding: Finding, file: str) -> dict[str, Any]:
    """The line is GitHub's wish: a safetensors file is binary, and its header is its first line."""
    place = {"artifactLocation": {"uri": file, "index": 0}, "region": {"startLine": 1}}
    if finding.about is None:
        return {"physicalLocation": place}
    name = finding.about.rpartition(".")[2] or finding.about
    logical = {"name": name, "fullyQualifiedName": finding.about, "kind": finding.place}
    return {"physicalLocation": place, "logicalLocations": [logical]}


def plain_message(text: str) -> str:
    """Text without a meaning of its own (SARIF 2.1.0, 3.11.5 and 3.11.6): `[...](...)` would be a
    link, `{0}` a placeholder."""
    escaped = re.sub(r"([\\\[\]])", r"\\\1", text)
    return escaped.replace("{", "{{").replace("}", "}}")


def _fingerprint(finding: Finding) -> str:
    """Over what a new run of the same adapter repeats: of a sentence about the whole its words, not
    its numbers."""
    words = finding.about if finding.about is not None else re.sub(r"[0-9.]+", "#", finding.message)
    role = str(finding.facts.get("role", ""))
    return sha256("\0".join((finding.rule, words, role)).encode()).hexdigest()[:32]
