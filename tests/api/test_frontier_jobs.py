"""Frontiers over real HTTP, as far as their submission: what is taken, shown and refused."""

from typing import Any

import httpx
import pytest

from tests.api.test_evaluate_jobs import JUDGING, newest, resolved

NONE = "0" * 64
PLAIN = {
    "kind": "frontier",
    "adapter": "adapter",
    "base_model": "base",
    "chat_model": "chat",
    "harmful": "prompts",
    "task": "answered",
}


def asked(named: dict[str, str], changes: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = resolved({**PLAIN, **changes}, named)
    return found


def test_a_frontier_is_accepted_with_its_defaults_resolved(
    http: httpx.Client, named: dict[str, str]
) -> None:
    answer = http.post("/v1/jobs", json=asked(named, {}))
    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert (job["kind"], job["adapter"]) == ("frontier", named["adapter"])
    assert (job["base_model"], job["chat_model"], job["method"]) == ("base", "chat", None)
    assert job["recipe"] == {
        "harmful": named["prompts"],
        "benign": None,
        "task": named["answered"],
        "held_out": None,
        **JUDGING,
        "families": ["approximate", "subspace", "complement", "scale", "prune"],
        "energy": 0.9,
        "safety_module": None,
        "constraints": {"min_refusal": None, "max_over_refusal": None, "max_utility_drop": None},
        "budget": {"evaluations": 100, "minutes": None},
        "seed": 0,
    }


def test_what_is_asked_for_is_what_is_kept(http: httpx.Client, named: dict[str, str]) -> None:
    changes = {
        "benign": "prompts",
        "held_out": {"harmful": "more_prompts", "benign": "half", "task": "more_answered"},
        "families": ["salora", "complement"],
        "energy": 0.5,
        "safety_module": "safety_module",
        "constraints": {"min_refusal": 0.9, "max_over_refusal": 1, "max_utility_drop": 0.0},
        "budget": {"evaluations": 10, "minutes": 0.5},
        "seed": 3,
        "judge": "logprob",
    }
    answer = http.post("/v1/jobs", json=asked(named, changes))
    assert answer.status_code == 202, answer.text
    kept = answer.json()["recipe"]
    assert {name: kept[name] for name in changes} == resolved(changes, named)
    assert http.get(f"/v1/jobs/{answer.json()['id']}").json()["recipe"] == kept


def test_energy_is_told_only_where_a_family_takes_it(
    http: httpx.Client, named: dict[str, str]
) -> None:
    job = http.post("/v1/jobs", json=asked(named, {"families": ["scale"]})).json()
    assert job["recipe"]["energy"] is None


SALORA = {"families": ["salora"]}
FIELD_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"harmful": None}, "harmful"),
    ({"task": None}, "task"),
    ({"adapter": None}, "adapter"),
    ({"base_model": None}, "base_model"),
    ({"base_model": "chat"}, "chat_model"),
    ({"base_model": "gone"}, "base_model"),
    ({"adapter": "marked_adapter"}, "adapter"),
    ({"families": []}, "families"),
    ({"families": ["lobotomy"]}, "families.0"),
    ({"families": ["scale", "scale"]}, "families"),
    ({"energy": 0}, "energy"),
    ({"energy": "0.5"}, "energy"),
    (SALORA, "safety_module"),
    ({"safety_module": "safety_module"}, "safety_module"),
    ({"held_out": {"harmful": "more_prompts"}}, "held_out"),
    ({"held_out": {"harmful": "prompts", "task": "more_answered"}}, "held_out"),
    ({"held_out": {"other": NONE}}, "held_out.other"),
    ({"held_out": {"harmful": "more_prompts", "task": "half"}}, "held_out.task"),
    ({"constraints": {"min_refusal": 1.5}}, "constraints.min_refusal"),
    ({"constraints": {"max_over_refusal": 0.1}}, "constraints.max_over_refusal"),
    ({"constraints": {"max_utility_drop": 0}}, "constraints.min_refusal"),
    ({"constraints": {"min_refusal": True}}, "constraints.min_refusal"),
    ({"constraints": {"cost": 1}}, "constraints.cost"),
    ({"budget": {"evaluations": 9}}, "budget.evaluations"),
    ({"budget": {"evaluations": 10.5}}, "budget.evaluations"),
    ({"budget": {"minutes": 0}}, "budget.minutes"),
    ({"budget": {"minutes": 10**400}}, "budget.minutes"),
    ({"seed": -1}, "seed"),
    ({"judge": "model"}, "guard_model"),
    ({"method": {}}, "method"),
    ({"adapters": []}, "adapters"),
]


@pytest.mark.parametrize(("changes", "field"), FIELD_FAULTS, ids=str)
def test_a_field_that_means_nothing_is_refused_by_name_and_nothing_is_kept(
    http: httpx.Client, named: dict[str, str], changes: dict[str, Any], field: str
) -> None:
    before = newest(http)
    answer = http.post("/v1/jobs", json=asked(named, changes))
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text
    assert newest(http) == before


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"adapter": NONE}, 404, "adapter-not-found", NONE),
    ({"adapter": "other_adapter"}, 422, "modules-not-in-model", "base_model base"),
    ({"harmful": NONE}, 404, "dataset-not-found", NONE),
    ({"held_out": {"harmful": NONE, "task": "more_answered"}}, 404, "dataset-not-found", NONE),
    ({"task": "half"}, 422, "responses-missing", "task: 1 of the 2 rows"),
    ({**SALORA, "safety_module": NONE}, 404, "part-not-found", "no safety module"),
    ({**SALORA, "safety_module": "other_safety_module"}, 422, "kit-of-another-model", "digest"),
    (
        {**SALORA, "safety_module": "wide_safety_module"},
        422,
        "adapter-outside-safety-module",
        "none of the adapter's modules",
    ),
]


@pytest.mark.parametrize(("changes", "status", "code", "culprit"), REFUSED, ids=str)
def test_a_frontier_that_cannot_be_searched_is_refused_and_not_kept(
    http: httpx.Client,
    named: dict[str, str],
    changes: dict[str, Any],
    status: int,
    code: str,
    culprit: str,
) -> None:
    before = newest(http)
    answer = http.post("/v1/jobs", json=asked(named, changes))
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (status, code)
    assert culprit in answer.json()["detail"]
    assert newest(http) == before
