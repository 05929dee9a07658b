"""SaLoRA's jobs over real HTTP, as far as their submission: what is taken, shown and refused."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from app.domain.job import Checkpointed, JobResult
from app.domain.report import ModelReference
from app.domain.salora import Part, PartKind, PartModule, SafetyModuleRecipe, TrainRecipe
from app.domain.salora_report import DataUse, SafetyRow, SaloraReport
from app.intake.checkpoint import read_checkpoint
from tests.factory import World
from tests.samples import a_file, a_part, a_salora_job, entry_of
from tests.service import Service
from tests.uploads import parts

NONE = "0" * 64


@pytest.fixture(scope="module")
def ids(
    service: Service, http: httpx.Client, llama_world: World, model_root: Path
) -> Iterator[dict[str, str]]:
    """What jobs may name, by the field that names it; `other_...` are of another model."""
    adapter = http.post("/v1/adapters", files=parts(llama_world.adapter)).json()
    raw = json.dumps({"prompt": "p", "response": uuid.uuid4().hex}).encode()
    sent = {"Content-Type": "application/jsonl"}
    dataset = http.post("/v1/datasets", content=raw, headers=sent).json()["id"]
    digest = read_checkpoint(model_root / "chat", field="", model="").digest
    modules = tuple(
        PartModule(m["module"], m["d_out"], m["d_in"], m["rank"]) for m in adapter["modules"]
    )

    def keep(kind: PartKind, **changes: Any) -> str:
        part: Part = replace(a_part(kind), chat_model="chat", chat_digest=digest, modules=modules)
        return records.add_part(replace(part, **changes)).id

    wide = (PartModule(modules[0].name, modules[0].d_out + 1, 3, 4),)
    with service.stores() as (records, _):
        yield {
            "adapter": adapter["id"],
            "dataset": dataset,
            "safety_module": keep("safety_module"),
            "kit": keep("kit"),
            "other_safety_module": keep("safety_module", chat_digest="1" * 64),
            "other_kit": keep("kit", chat_digest="1" * 64),
            "wide": keep("safety_module", modules=wide),
            "small_kit": keep("kit", modules=modules[1:]),
            "large_kit": keep("kit", modules=(*modules, PartModule("extra", 1, 1, 1))),
            "ranked_kit": keep("kit", modules=tuple(replace(m, rank=m.rank + 1) for m in modules)),
        }


def asked(kind: str, ids: dict[str, str], **changes: object) -> dict[str, object]:
    named = {
        "safety_module": ("dataset",),
        "salora_init": ("safety_module",),
        "salora_train": ("kit", "dataset"),
        "salora_export": ("kit", "adapter"),
    }[kind]
    return {"kind": kind, "chat_model": "chat", **{n: ids[n] for n in named}, **changes}


RUN = {"chat_template": True, "max_length": 1024, "dtype": "auto"}
RECIPES = {
    "safety_module": {"target_modules": ["q_proj", "v_proj"], "rank": 32, **RUN},
    "salora_init": {
        "dataset": None,
        "rank": 16,
        "alpha": 16.0,
        "use_rslora": False,
        "task_rank": 32,
        "initialisation": "salora",
        **RUN,
    },
    "salora_train": {
        "epochs": 1.0,
        "learning_rate": 1e-4,
        "batch_size": 16,
        "gradient_accumulation_steps": 1,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "seed": 0,
        "gradient_checkpointing": False,
        "checkpoint_steps": 50,
        "export_rank": None,
        "plain_lora": False,
        **RUN,
    },
    "salora_export": {"rank": None},
}


@pytest.mark.parametrize("kind", RECIPES)
def test_a_job_is_accepted_with_its_recipe(
    http: httpx.Client, ids: dict[str, str], kind: str
) -> None:
    body = asked(kind, ids)
    answer = http.post("/v1/jobs", json=body)
    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert (job["kind"], job["base_model"], job["method"]) == (kind, None, None)
    assert job["adapter"] == body.get("adapter")
    named = {n: body[n] for n in ("dataset", "safety_module", "kit") if n in body}
    assert job["recipe"] == {**RECIPES[kind], **named}
    assert job["checkpoint"] is None
    shown = http.get(f"/v1/jobs/{job['id']}").json()
    assert shown["recipe"] == job["recipe"]
    assert job["id"] in [
        j["id"] for j in http.get("/v1/jobs", params={"kind": kind}).json()["items"]
    ]


def test_what_is_asked_for_is_what_is_kept(http: httpx.Client, ids: dict[str, str]) -> None:
    changes = {
        "epochs": 3,
        "learning_rate": 2e-5,
        "chat_template": False,
        "max_length": 256,
        "dtype": "bfloat16",
        "export_rank": 4,
    }
    job = http.post("/v1/jobs", json=asked("salora_train", ids, **changes)).json()
    assert {name: job["recipe"][name] for name in changes} == changes


def test_a_repeated_post_with_the_same_key_is_one_job(
    http: httpx.Client, ids: dict[str, str]
) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first, again, other = (
        http.post("/v1/jobs", json=asked("salora_init", ids, rank=rank), headers=key)
        for rank in (8, 8, 9)
    )
    assert first.json()["id"] == again.json()["id"]
    assert other.json()["type"].endswith(":idempotency-key-reused")


FIELD_FAULTS = [
    ("safety_module", {"rank": 0}, "rank"),
    ("safety_module", {"rank": 2.5}, "rank"),
    ("safety_module", {"rank": "8"}, "rank"),
    ("safety_module", {"target_modules": []}, "target_modules"),
    ("safety_module", {"target_modules": [""]}, "target_modules.0"),
    ("safety_module", {"target_modules": "q_proj"}, "target_modules"),
    ("safety_module", {"max_length": 1}, "max_length"),
    ("safety_module", {"dtype": "float16"}, "dtype"),
    ("safety_module", {"chat_template": "yes"}, "chat_template"),
    ("safety_module", {"dataset": None}, "dataset"),
    ("safety_module", {"base_model": "base"}, "base_model"),
    ("safety_module", {"method": {}}, "method"),
    ("safety_module", {"adapter": NONE}, "adapter"),
    ("safety_module", {"surprise": 1}, "surprise"),
    ("salora_init", {"alpha": 0}, "alpha"),
    ("salora_init", {"alpha": 1e-7}, "alpha"),
    ("salora_init", {"alpha": 10**400}, "alpha"),
    ("salora_init", {"initialisation": "gaussian"}, "initialisation"),
    ("salora_init", {"initialisation": "zero", "dataset": NONE}, "dataset"),
    ("salora_train", {"epochs": 0}, "epochs"),
    ("salora_train", {"learning_rate": True}, "learning_rate"),
    ("salora_train", {"learning_rate": 11}, "learning_rate"),
    ("salora_train", {"seed": -1}, "seed"),
    ("salora_train", {"export_rank": 0}, "export_rank"),
    ("salora_train", {"rank": 8}, "rank"),
    ("salora_export", {"rank": 0}, "rank"),
    ("salora_export", {"dataset": NONE}, "dataset"),
    ("salora_export", {"adapter": None}, "adapter"),
]


@pytest.mark.parametrize(("kind", "changes", "field"), FIELD_FAULTS, ids=str)
def test_a_field_that_means_nothing_is_refused_by_name(
    http: httpx.Client, ids: dict[str, str], kind: str, changes: dict[str, object], field: str
) -> None:
    answer = http.post("/v1/jobs", json=asked(kind, ids, **changes))
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text


def test_nan_is_refused_by_name(http: httpx.Client, ids: dict[str, str]) -> None:
    raw = json.dumps(asked("salora_train", ids, learning_rate=float("nan")))
    sent = {"Content-Type": "application/json"}
    answer = http.post("/v1/jobs", content=raw, headers=sent)
    assert (answer.status_code, answer.json()["field"]) == (422, "learning_rate")


@pytest.mark.parametrize("kind", RECIPES)
def test_each_field_that_is_needed_is_missed_by_name(
    http: httpx.Client, ids: dict[str, str], kind: str
) -> None:
    whole = asked(kind, ids)
    for field in whole.keys() - {"kind"}:
        answer = http.post("/v1/jobs", json={k: v for k, v in whole.items() if k != field})
        assert (answer.status_code, answer.json()["field"]) == (422, field)


REFUSED = [
    ("safety_module", {"dataset": NONE}, 404, "dataset-not-found", NONE),
    ("safety_module", {"chat_model": "gone"}, 422, "unknown-model", "chat_model"),
    ("safety_module", {"target_modules": ["q_proj", "w_q"]}, 422, "targets-refused", "w_q"),
    ("safety_module", {"target_modules": ["embed_tokens"]}, 422, "targets-refused", "embedding"),
    ("safety_module", {"target_modules": ["lm_head"]}, 422, "targets-refused", "output head"),
    ("safety_module", {"target_modules": ["norm"]}, 422, "targets-refused", "norm"),
    ("safety_module", {"target_modules": ["_proj"]}, 422, "targets-refused", "_proj"),
    ("salora_init", {"safety_module": NONE}, 404, "part-not-found", "no safety module"),
    ("salora_init", {"safety_module": "kit"}, 404, "part-not-found", "no safety module"),
    ("salora_init", {"dataset": NONE}, 404, "dataset-not-found", NONE),
    ("salora_init", {"safety_module": "other_safety_module"}, 422, "kit-of-another-model", "1111"),
    ("salora_init", {"chat_model": "base"}, 422, "kit-of-another-model", "chat_model base"),
    ("salora_train", {"kit": NONE}, 404, "part-not-found", "no kit"),
    ("salora_train", {"kit": "other_kit"}, 422, "kit-of-another-model", "the kit was made for"),
    ("salora_train", {"dataset": NONE}, 404, "dataset-not-found", NONE),
    ("salora_export", {"adapter": NONE}, 404, "adapter-not-found", NONE),
    ("salora_export", {"kit": NONE}, 404, "part-not-found", "no kit"),
    ("salora_export", {"kit": "other_kit"}, 422, "kit-of-another-model", "digest"),
    ("salora_export", {"kit": "small_kit"}, 422, "adapter-does-not-fit-kit", "down_proj"),
    ("salora_export", {"kit": "large_kit"}, 422, "adapter-does-not-fit-kit", "extra"),
    ("salora_export", {"kit": "ranked_kit"}, 422, "adapter-does-not-fit-kit", "rank or shape"),
]


@pytest.mark.parametrize(("kind", "changes", "status", "code", "culprit"), REFUSED, ids=str)
def test_a_job_that_cannot_be_done_is_refused_and_not_kept(
    http: httpx.Client,
    ids: dict[str, str],
    kind: str,
    changes: dict[str, str],
    status: int,
    code: str,
    culprit: str,
) -> None:
    changes = {k: ids.get(v, v) if isinstance(v, str) else v for k, v in changes.items()}
    newest = http.get("/v1/jobs", params={"limit": 1}).json()["items"]
    answer = http.post("/v1/jobs", json=asked(kind, ids, **changes))
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (status, code)
    assert culprit in answer.json()["detail"]
    after = http.get("/v1/jobs", params={"limit": 1}).json()["items"]
    assert [job["id"] for job in after] == [job["id"] for job in newest]


def test_target_modules_are_full_names_too(http: httpx.Client, ids: dict[str, str]) -> None:
    names = ["model.layers.1.self_attn.q_proj", "0.mlp.up_proj"]
    job = http.post("/v1/jobs", json=asked("safety_module", ids, target_modules=names))
    assert job.json()["recipe"]["target_modules"] == names


def by_salora(ids: dict[str, str], safety_module: str, **changes: object) -> dict[str, object]:
    method = {"name": "salora", "safety_module": safety_module}
    return {"adapter": ids["adapter"], "chat_model": "chat", "method": method, **changes}


@pytest.mark.parametrize("kind", ["patch", "score"])
@pytest.mark.parametrize("models", [{}, {"base_model": "base"}])
def test_a_patch_by_a_safety_module_needs_no_base_model(
    http: httpx.Client, ids: dict[str, str], kind: str, models: dict[str, str]
) -> None:
    body = by_salora(ids, ids["safety_module"], kind=kind, **models)
    answer = http.post("/v1/jobs", json=body)
    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert (job["kind"], job["base_model"]) == (kind, models.get("base_model"))
    assert job["method"]["name"] == "salora"
    assert job["method"]["safety_module"] == ids["safety_module"]
    assert job["method"]["projector"] is None


@pytest.mark.parametrize(
    ("named", "changes", "status", "code", "culprit"),
    [
        (NONE, {}, 404, "part-not-found", "no safety module"),
        ("other_safety_module", {}, 422, "kit-of-another-model", "the safety module was made"),
        ("wide", {}, 422, "adapter-outside-safety-module", "down_proj"),
        ("safety_module", {"chat_model": "gone"}, 422, "unknown-model", "gone"),
        ("safety_module", {"base_model": "gone"}, 422, "unknown-model", "gone"),
        ("safety_module", {"base_model": "chat"}, 422, "invalid-field", "same model"),
    ],
)
def test_a_safety_module_that_does_not_fit_is_refused(
    http: httpx.Client,
    ids: dict[str, str],
    named: str,
    changes: dict[str, object],
    status: int,
    code: str,
    culprit: str,
) -> None:
    answer = http.post("/v1/jobs", json=by_salora(ids, ids.get(named, named), **changes))
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (status, code)
    assert culprit in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ({"name": "salora"}, "method.safety_module"),
        ({"name": "safe_lora", "safety_module": NONE}, "method.safety_module"),
        ({"name": "salora", "safety_module": NONE, "projector": "exact"}, "method.projector"),
        ({"name": "salora", "safety_module": NONE, "rank": 3}, "method.rank"),
        ({"name": "safe_lora"}, "base_model"),
        ({"name": "prune"}, "base_model"),
    ],
)
def test_a_method_without_what_it_needs_is_refused_by_field(
    http: httpx.Client, ids: dict[str, str], method: dict[str, object], field: str
) -> None:
    answer = http.post("/v1/jobs", json=by_salora(ids, NONE, method=method))
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_one_call_takes_a_safety_module(
    http: httpx.Client, ids: dict[str, str], llama_world: World
) -> None:
    fields = {"chat_model": "chat", "name": "salora", "safety_module": ids["safety_module"]}
    answer = http.post("/v1/patch", files=parts(llama_world.adapter), data=fields)
    assert answer.status_code == 202, answer.text
    assert answer.json()["method"]["safety_module"] == ids["safety_module"]
    without = {"chat_model": "chat"}
    refused = http.post("/v1/patch", files=parts(llama_world.adapter), data=without)
    assert (refused.status_code, refused.json()["field"]) == (422, "base_model")


def test_more_modules_than_there_are_cannot_be_selected(
    http: httpx.Client, ids: dict[str, str]
) -> None:
    method = {
        "name": "salora",
        "safety_module": ids["safety_module"],
        "select": {"by": "count", "value": 7},
    }
    answer = http.post("/v1/jobs", json=by_salora(ids, NONE, method=method))
    assert (answer.status_code, answer.json()["field"]) == (422, "method.select.value")


def test_the_description_names_every_kind(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()
    body = described["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    kinds = body["schema"]["discriminator"]["mapping"]
    assert set(kinds) == {"patch", "score", "evaluate", "frontier", *RECIPES}


def a_report(ids: dict[str, str]) -> SaloraReport:
    rows = [SafetyRow("m.0.q_proj", 0, "q_proj", (32, 32), 8, 0.9, 3.0, 0.1, "second moments")]
    return SaloraReport(
        kind="safety_module",
        chat_model=ModelReference("chat", None, NONE),
        settings={"rank": 8},
        data=[DataUse("safety", ids["dataset"], 1, 9, 4, 0, True)],
        modules=rows,
        warnings=["few rows"],
        versions={"torch": "2"},
        part=ids["safety_module"],
    )


def test_what_a_job_has_made_is_linked_and_reported_in_every_form(
    http: httpx.Client, service: Service, ids: dict[str, str], tmp_path: Path
) -> None:
    """The queue never hears of these jobs, so no worker takes them from the test."""
    path, report = a_file(tmp_path, json.dumps(a_report(ids).as_json()).encode())
    with service.stores() as (records, artifacts):
        artifacts.put(path, report)
        recipe = SafetyModuleRecipe(ids["dataset"])
        job = a_salora_job("safety_module", recipe, chat_model="chat")
        records.add_job(job, None)
        held = records.claim(job.id, lease_s=60)
        assert held is not None
        result = JobResult(report, None, ids["safety_module"])
        records.finish(job.id, fence=held.fence, status="succeeded", result=result)
    links = http.get(f"/v1/jobs/{job.id}").json()["links"]
    assert links["safety_module"] == f"/v1/safety-modules/{ids['safety_module']}"
    assert "adapter" not in links
    schema = http.get("/v1/schemas/salora").json()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(http.get(links["report"]).json())
    for form in ("csv", "markdown", "html"):
        answer = http.get(links["report"], params={"format": form})
        assert answer.status_code == 200
        assert "m.0.q_proj" in answer.text
    anew = http.get(links["report"], params={"threshold": "0.5"})
    assert (anew.status_code, anew.json()["field"]) == (422, "threshold")
    adapter = http.get(f"/v1/jobs/{job.id}/adapter")
    assert (adapter.status_code, adapter.json()["status"]) == (404, 404)


def test_a_training_shows_how_far_it_has_come(
    http: httpx.Client, service: Service, ids: dict[str, str]
) -> None:
    with service.stores() as (records, _):
        recipe = TrainRecipe(ids["kit"], ids["dataset"])
        job = records.add_job(a_salora_job("salora_train", recipe, chat_model="chat"), None)
        held = records.claim(job.id, lease_s=60)
        assert held is not None
        checkpoint = Checkpointed(50, entry_of(b"checkpoint"))
        records.note_checkpoint(job.id, fence=held.fence, checkpoint=checkpoint)
        assert http.get(f"/v1/jobs/{job.id}").json()["checkpoint"] == {"step": 50, "size_bytes": 10}
        records.finish(job.id, fence=held.fence, status="cancelled")
    assert http.get(f"/v1/jobs/{job.id}").json()["checkpoint"] is None
