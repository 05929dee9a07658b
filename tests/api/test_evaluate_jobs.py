"""Evaluations over real HTTP, as far as their submission: what is taken, shown and refused."""

import json
from typing import Any

import httpx
import pytest

NONE = "0" * 64
JUDGING = {
    "judge": "keywords",
    "utility": "exact",
    "guard_model": None,
    "max_new_tokens": 256,
    "chat_template": True,
    "max_length": 1024,
    "dtype": "auto",
}
SETS = {"harmful": "prompts", "benign": "half", "task": "answered"}


def asked(named: dict[str, str], **changes: Any) -> dict[str, Any]:
    sets = {role: named[name] for role, name in SETS.items()}
    return {"kind": "evaluate", "chat_model": "chat", **sets, **changes}


def resolved(value: Any, named: dict[str, str]) -> Any:
    """With the ids in the place of what they stand for."""
    if isinstance(value, dict):
        kind = {key: inner for key, inner in value.items() if key == "kind"}  # a safety_module
        return {key: resolved(inner, named) for key, inner in value.items()} | kind
    if isinstance(value, list):
        return [resolved(inner, named) for inner in value]
    return named.get(value, value) if isinstance(value, str) else value


def newest(http: httpx.Client) -> list[str]:
    return [job["id"] for job in http.get("/v1/jobs", params={"limit": 1}).json()["items"]]


def test_an_evaluation_is_accepted_with_its_recipe(
    http: httpx.Client, named: dict[str, str]
) -> None:
    subjects = [
        {"name": "tuned", "adapter": named["adapter"], "job": None},
        {"name": "patched", "adapter": None, "job": named["patched"]},
    ]
    answer = http.post("/v1/jobs", json=asked(named, adapters=subjects))
    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert (job["kind"], job["adapter"], job["base_model"]) == ("evaluate", None, None)
    assert (job["method"], job["checkpoint"]) == (None, None)
    sets = {role: named[name] for role, name in SETS.items()}
    assert job["recipe"] == {**sets, "adapters": subjects, **JUDGING}
    assert http.get(f"/v1/jobs/{job['id']}").json()["recipe"] == job["recipe"]
    listed = http.get("/v1/jobs", params={"kind": "evaluate"}).json()["items"]
    assert job["id"] in [each["id"] for each in listed]


def test_what_is_asked_for_is_what_is_kept(http: httpx.Client, named: dict[str, str]) -> None:
    changes = {
        "judge": "model",
        "utility": "loss",
        "guard_model": "talk",
        "max_new_tokens": 16,
        "chat_template": False,
        "max_length": 64,
        "dtype": "float32",
    }
    only = {"benign": None, "task": None}
    recipe = http.post("/v1/jobs", json=asked(named, **only, **changes)).json()["recipe"]
    assert recipe == {"harmful": named["prompts"], **only, "adapters": [], **changes}


FIELD_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"harmful": None, "benign": None, "task": None}, "harmful"),
    ({"judge": "vibes"}, "judge"),
    ({"utility": "bleu"}, "utility"),
    ({"judge": "model"}, "guard_model"),
    ({"guard_model": "talk"}, "guard_model"),
    ({"judge": "model", "guard_model": "gone"}, "guard_model"),
    ({"judge": "model", "guard_model": "../talk"}, "guard_model"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"max_new_tokens": 4097}, "max_new_tokens"),
    ({"max_new_tokens": 1.5}, "max_new_tokens"),
    ({"max_length": 1}, "max_length"),
    ({"chat_template": 1}, "chat_template"),
    ({"dtype": "float16"}, "dtype"),
    ({"chat_model": None}, "chat_model"),
    ({"chat_model": "gone"}, "chat_model"),
    ({"base_model": "base"}, "base_model"),
    ({"adapter": NONE}, "adapter"),
    ({"method": {}}, "method"),
    ({"surprise": 1}, "surprise"),
    ({"adapters": "tuned"}, "adapters"),
    ({"adapters": [{"name": "chat", "adapter": "adapter"}]}, "adapters.name"),
    ({"adapters": [{"name": "a\nb", "adapter": "adapter"}]}, "adapters.name"),
    ({"adapters": [{"name": "", "adapter": "adapter"}]}, "adapters.0.name"),
    ({"adapters": [{"name": "a"}]}, "adapters"),
    ({"adapters": [{"name": "a", "adapter": "adapter", "job": "patched"}]}, "adapters"),
    ({"adapters": [{"name": "a", "adapter": "adapter", "weight": 1}]}, "adapters.0.weight"),
    ({"adapters": [{"name": "a", "adapter": "adapter"}] * 2}, "adapters"),
    ({"adapters": [{"name": str(n), "adapter": "adapter"} for n in range(17)]}, "adapters"),
    ({"adapters": [{"name": "a", "adapter": "marked_adapter"}]}, "adapters.0.adapter"),
    ({"adapters": [{"name": "a", "adapter": "other_adapter"}]}, "adapters.0.adapter"),
    (
        {
            "adapters": [
                {"name": "a", "adapter": "adapter"},
                {"name": "b", "adapter": "other_adapter"},
            ]
        },
        "adapters.1.adapter",
    ),
    ({"adapters": [{"name": "a", "job": "scored"}]}, "adapters.0.job"),
    ({"adapters": [{"name": "a", "job": "failed"}]}, "adapters.0.job"),
]


@pytest.mark.parametrize(("changes", "field"), FIELD_FAULTS, ids=str)
def test_a_field_that_means_nothing_is_refused_by_name_and_nothing_is_kept(
    http: httpx.Client, named: dict[str, str], changes: dict[str, Any], field: str
) -> None:
    before = newest(http)
    answer = http.post("/v1/jobs", json=asked(named, **resolved(changes, named)))
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text
    assert newest(http) == before


NOT_THERE: list[tuple[dict[str, Any], int, str, str]] = [
    ({"harmful": NONE}, 404, "dataset-not-found", NONE),
    ({"benign": "\x00"}, 404, "dataset-not-found", "no data set"),
    ({"task": NONE}, 404, "dataset-not-found", NONE),
    ({"adapters": [{"name": "a", "adapter": NONE}]}, 404, "adapter-not-found", NONE),
    ({"adapters": [{"name": "a", "job": NONE}]}, 404, "job-not-found", NONE),
    ({"adapters": [{"name": "a", "job": "foreign"}]}, 404, "job-not-found", "no job"),
    ({"adapters": [{"name": "a", "job": "running"}]}, 409, "job-not-finished", "running"),
]


@pytest.mark.parametrize(("changes", "status", "code", "culprit"), NOT_THERE, ids=str)
def test_what_is_not_there_is_named_and_nothing_is_kept(
    http: httpx.Client,
    named: dict[str, str],
    changes: dict[str, Any],
    status: int,
    code: str,
    culprit: str,
) -> None:
    before = newest(http)
    answer = http.post("/v1/jobs", json=asked(named, **resolved(changes, named)))
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (status, code)
    assert culprit in answer.json()["detail"]
    assert newest(http) == before


def test_an_adapter_that_does_not_fit_is_told_with_its_reason(
    http: httpx.Client, named: dict[str, str]
) -> None:
    subject = {"name": "a", "adapter": named["other_adapter"]}
    answer = http.post("/v1/jobs", json=asked(named, adapters=[subject])).json()
    assert "chat_model chat has no weight for" in answer["detail"]


def test_an_adapter_that_was_not_exported_says_what_to_do(
    http: httpx.Client, named: dict[str, str]
) -> None:
    subject = {"name": "a", "adapter": named["marked_adapter"]}
    answer = http.post("/v1/jobs", json=asked(named, adapters=[subject])).json()
    assert "export it first" in answer["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "evaluate", "task": "half"}, "task"),
        ({"kind": "safety_module", "dataset": "half"}, "dataset"),
        ({"kind": "salora_init", "safety_module": "safety_module", "dataset": "half"}, "dataset"),
    ],
)
def test_rows_without_a_response_are_refused_where_one_is_needed(
    http: httpx.Client, named: dict[str, str], body: dict[str, str], field: str
) -> None:
    answer = http.post("/v1/jobs", json={"chat_model": "chat", **resolved(body, named)})
    said = answer.json()
    assert (answer.status_code, said["type"].split(":")[-1]) == (422, "responses-missing")
    assert (said["field"], said["rows"], said["of"]) == (field, 1, 2)
    assert "1 of the 2 rows" in said["detail"]


def test_nan_is_refused_by_name(http: httpx.Client, named: dict[str, str]) -> None:
    raw = json.dumps(asked(named, max_new_tokens=float("nan")))
    answer = http.post("/v1/jobs", content=raw, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["field"]) == (422, "max_new_tokens")
