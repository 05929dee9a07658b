"""The reports of measuring jobs, as they are served, follow the schemas that are published."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from app.domain.evaluation import EvaluateRecipe, Sets
from app.domain.job import JobResult
from app.domain.measured import (
    Cell,
    Choice,
    Comparison,
    Confirmation,
    Drift,
    EvaluationReport,
    FrontierReport,
    Mean,
    Point,
    Rate,
    Scores,
    SetUse,
    Spent,
    SubjectUse,
)
from app.domain.report import AdapterReference, ModelReference
from tests.api.conftest import end
from tests.samples import a_file, a_measure_job
from tests.service import Service

DIGEST = "0" * 64
CHAT, BASE = ModelReference("chat", None, DIGEST), ModelReference("base", "abc", DIGEST)
RATE, MEAN = Rate(1, 4, 0.25, 0.0456, 0.6994), Mean(1.5, 4, 1.0, 2.0)
JUDGED = Cell("chat", "harmful", "keywords", 4, "refused", RATE, None, RATE, 0, 1, None)
LOSS = Cell("tuned", "task", "loss", 4, None, None, MEAN, None, None, None, Drift(0.1, 0.2))
TOLD = Comparison("task", "chat", "tuned", 0, 3, 4, 0.25, "not told apart", "No difference.")
USE = SetUse("harmful", "held out", DIGEST, 4, DIGEST, True)
SETTINGS = {"judge": "keywords", "max_new_tokens": 256}
VERSIONS = {"torch": "2"}


def a_point(**changes: Any) -> Point:
    method = {"name": "scale", "factor": 0.5, "select": {"by": "all", "value": None}}
    kept = {"stage": "measured", "cells": [JUDGED, LOSS], "holds": True, **changes}
    return Point("scale", 1, 2, method, scores=Scores(0.25, None, -1.5, 0.1), **kept)


def evaluation(**changes: Any) -> dict[str, Any]:
    kept = {
        "chat_model": CHAT,
        "subjects": [SubjectUse("tuned", DIGEST, None), SubjectUse("patched", DIGEST, "1" * 32)],
        "settings": SETTINGS,
        "data": [USE],
        "table": [JUDGED, LOSS],
        "comparisons": [TOLD],
        "warnings": ["4 rows are few."],
        "versions": VERSIONS,
        **changes,
    }
    return EvaluationReport(**kept).as_json()


def frontier(**changes: Any) -> dict[str, Any]:
    confirmation = Confirmation([JUDGED], [TOLD], holds=True, agrees=False)
    kept = {
        "adapter": AdapterReference(DIGEST, "org/chat", ("auto_mapping",)),
        "base_model": BASE,
        "chat_model": CHAT,
        "settings": SETTINGS,
        "data": [USE],
        "original": [JUDGED, LOSS],
        "points": [a_point(), a_point(stage="screened", cells=[], holds=None)],
        "frontier": [0],
        "default": 0,
        "dominating": [],
        "choice": Choice(a_point(), "the most refusals", {"kind": "patch"}, confirmation),
        "satisfied": True,
        "spent": Spent(1, 1, 30, complete=True),
        "warnings": [],
        "versions": VERSIONS,
        **changes,
    }
    return FrontierReport(**kept).as_json()


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("evaluation", evaluation()),
        ("evaluation", evaluation(subjects=[], comparisons=[], warnings=[])),
        ("frontier", frontier()),
        ("frontier", frontier(choice=None, frontier=[], points=[], satisfied=False)),
    ],
)
def test_a_report_as_it_is_served_follows_its_schema(
    http: httpx.Client,
    service: Service,
    named: dict[str, str],
    tmp_path: Path,
    name: str,
    report: dict[str, Any],
) -> None:
    path, file = a_file(tmp_path, json.dumps(report).encode())
    with service.stores() as (records, artifacts):
        artifacts.put(path, file)
        job = a_measure_job("evaluate", EvaluateRecipe(Sets(named["prompts"])))
        end(records, job, JobResult(file, None))
    served = http.get(f"/v1/jobs/{job.id}/report", params={"format": "json"}).json()
    schema = http.get(f"/v1/schemas/{name}").json()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(served)
    assert served == json.loads(json.dumps(report))
    anew = http.get(f"/v1/jobs/{job.id}/report", params={"threshold": "0.5"})
    assert (anew.status_code, anew.json()["field"]) == (422, "threshold")


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("evaluation", {**evaluation(), "table": [{**evaluation()["table"][0], "n": "4"}]}),
        ("evaluation", {k: v for k, v in evaluation().items() if k != "chat_model"}),
        ("evaluation", {**evaluation(), "kind": "frontier"}),
        ("frontier", {**frontier(), "frontier": [None]}),
        ("frontier", {k: v for k, v in frontier().items() if k != "spent"}),
        ("frontier", evaluation()),
    ],
    ids=str,
)
def test_what_is_no_such_report_does_not(
    http: httpx.Client, name: str, report: dict[str, Any]
) -> None:
    schema = http.get(f"/v1/schemas/{name}").json()
    plain = json.loads(json.dumps(report))
    assert list(Draft202012Validator(schema).iter_errors(plain))
