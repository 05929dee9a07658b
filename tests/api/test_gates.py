"""Patches with a gate over real HTTP, as far as their submission."""

import json
from typing import Any

import httpx
import pytest

from tests.api.test_evaluate_jobs import JUDGING, newest, resolved
from tests.factory import World
from tests.uploads import parts

NONE = "0" * 64
GATE = {"harmful": "prompts", "benign": "half", "task": "answered"}
PLAIN = {"adapter": "adapter", "base_model": "base", "chat_model": "chat"}
GATED = {**PLAIN, "require": "no_worse", "gate": GATE}


def asked(named: dict[str, str], **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = resolved({**GATED, **changes}, named)
    return found


def test_a_patch_is_accepted_with_its_gate(http: httpx.Client, named: dict[str, str]) -> None:
    answer = http.post("/v1/jobs", json=asked(named))
    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert (job["kind"], job["method"]["name"]) == ("patch", "safe_lora")
    gate = {**resolved(GATE, named), **JUDGING}
    assert job["recipe"] == {"require": "no_worse", "gate": gate}
    assert http.get(f"/v1/jobs/{job['id']}").json()["recipe"] == job["recipe"]


def test_a_patch_without_a_gate_shows_none(http: httpx.Client, named: dict[str, str]) -> None:
    body = {**asked(named), "require": None, "gate": None}
    assert http.post("/v1/jobs", json=body).json()["recipe"] is None


FIELD_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"require": None}, "require"),
    ({"gate": None}, "gate"),
    ({"require": "better"}, "require"),
    ({"kind": "score"}, "gate"),
    ({"gate": {}}, "gate.harmful"),
    ({"gate": {"harmful": None}}, "gate.harmful"),
    ({"gate": {**GATE, "judge": "vibes"}}, "gate.judge"),
    ({"gate": {**GATE, "judge": "model"}}, "gate.guard_model"),
    ({"gate": {**GATE, "judge": "model", "guard_model": "gone"}}, "gate.guard_model"),
    ({"gate": {**GATE, "max_new_tokens": 0}}, "gate.max_new_tokens"),
    ({"gate": {**GATE, "task": "half"}}, "gate.task"),
    ({"gate": {**GATE, "adapters": []}}, "gate.adapters"),
]


@pytest.mark.parametrize(("changes", "field"), FIELD_FAULTS, ids=str)
def test_a_gate_that_means_nothing_is_refused_by_name_and_nothing_is_kept(
    http: httpx.Client, named: dict[str, str], changes: dict[str, Any], field: str
) -> None:
    before = newest(http)
    answer = http.post("/v1/jobs", json=asked(named, **changes))
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text
    assert newest(http) == before


def test_a_gate_of_a_data_set_that_is_not_there_is_refused(
    http: httpx.Client, named: dict[str, str]
) -> None:
    answer = http.post("/v1/jobs", json=asked(named, gate={"harmful": NONE}))
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (404, "dataset-not-found")


def test_the_patch_itself_is_checked_as_without_a_gate(
    http: httpx.Client, named: dict[str, str]
) -> None:
    answer = http.post("/v1/jobs", json=asked(named, base_model="chat"))
    assert (answer.status_code, answer.json()["field"]) == (422, "chat_model")


def by_safety_module(named: dict[str, str]) -> dict[str, Any]:
    method = {"name": "salora", "safety_module": "safety_module"}
    return asked(named, base_model=None, method=method)


def test_a_patch_without_a_base_model_may_have_a_gate(
    http: httpx.Client, named: dict[str, str]
) -> None:
    answer = http.post("/v1/jobs", json=by_safety_module(named))
    assert answer.status_code == 202, answer.text
    assert answer.json()["recipe"]["require"] == "no_worse"


def test_the_same_patch_with_and_without_a_gate_are_two_requests(
    http: httpx.Client, named: dict[str, str]
) -> None:
    key = {"Idempotency-Key": f"gate-{named['patched']}"}
    plain = {**asked(named), "require": None, "gate": None}
    assert http.post("/v1/jobs", json=plain, headers=key).status_code == 202
    answer = http.post("/v1/jobs", json=asked(named), headers=key)
    assert answer.json()["type"].endswith(":idempotency-key-reused")


# -------------------------------------------------------------------------------------- one call
def one_call(http: httpx.Client, world: World, **fields: str) -> httpx.Response:
    models = {"base_model": "base", "chat_model": "chat"}
    return http.post("/v1/patch", files=parts(world.adapter), data={**models, **fields})


def test_one_call_takes_a_gate(
    http: httpx.Client, named: dict[str, str], llama_world: World
) -> None:
    gate = json.dumps(resolved(GATE, named))
    answer = one_call(http, llama_world, require="no_worse", gate=gate)
    assert answer.status_code == 202, answer.text
    assert answer.json()["recipe"]["gate"]["task"] == named["answered"]


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"require": "no_worse"}, 422, "gate"),
        ({"gate": json.dumps({"harmful": NONE})}, 422, "require"),
        ({"require": "no_worse", "gate": json.dumps({"task": NONE})}, 422, "gate.harmful"),
        ({"require": "no_worse", "gate": "{"}, 400, None),
        ({"require": "no_worse", "gate": json.dumps({"harmful": NONE})}, 404, None),
    ],
)
def test_one_call_refuses_what_a_job_refuses_and_keeps_nothing(
    http: httpx.Client,
    named: dict[str, str],
    llama_world: World,
    fields: dict[str, str],
    status: int,
    field: str | None,
) -> None:
    before = newest(http)
    answer = one_call(http, llama_world, **fields)
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text
    assert newest(http) == before
