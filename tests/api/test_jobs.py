"""Jobs over real HTTP, done by a real worker: submit, follow, retrieve, refuse."""

import base64
import csv
import hashlib
import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from safetensors.torch import load, load_file, save_file

from app.client import Client, parse_events
from app.domain.adapter import PATCHED_FILES, WEIGHTS_FILE
from tests.factory import World, make_world
from tests.faults.processes import until
from tests.reports import assert_alike, wherever_from
from tests.service import Service
from tests.uploads import parts

ALL = {"name": "safe_lora", "select": {"by": "all"}}
WAIT = {"Prefer": "wait=60"}


@pytest.fixture(scope="module")
def adapter(http: httpx.Client, llama_world: World) -> str:
    return http.post("/v1/adapters", files=parts(llama_world.adapter)).json()["id"]


def body(adapter_id: str, /, **changes: object) -> dict[str, object]:
    plain = {"kind": "patch", "adapter": adapter_id, "base_model": "base", "chat_model": "chat"}
    return {**plain, **changes}


@pytest.fixture(scope="module")
def done(http: httpx.Client, adapter: str) -> dict[str, Any]:
    """A job that has succeeded, every module projected."""
    answer = http.post("/v1/jobs", json=body(adapter, method=ALL), headers=WAIT)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded"
    return answer.json()


def test_a_job_is_accepted_with_its_location(http: httpx.Client, adapter: str) -> None:
    answer = http.post("/v1/jobs", json=body(adapter))
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert job["method"] == {
        "name": "safe_lora",
        "projector": "approximate",
        "energy": None,
        "rank": None,
        "select": {"by": "threshold", "value": 0.5},
        "factor": None,
        "rescale": "none",
        "full_weights": "keep",
        "safety_module": None,
    }
    assert (job["recipe"], job["checkpoint"]) == (None, None)


def test_a_waiting_client_gets_the_finished_job(done: dict[str, Any]) -> None:
    assert done["progress"] == {"done": 6, "total": 6}
    assert done["links"]["adapter"] == f"/v1/jobs/{done['id']}/adapter"


def test_a_client_that_waits_too_short_gets_the_job_as_it_is(
    http: httpx.Client, adapter: str
) -> None:
    answer = http.post("/v1/jobs", json=body(adapter), headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=0"


def test_events_tell_every_module_in_order_and_end(service: Service, done: dict[str, Any]) -> None:
    with Client(service.url) as client:
        events = list(client.events(done["id"]))
    assert [e.name for e in events] == ["queued", "running", *["module"] * 6, "succeeded"]
    assert [e.data["done"] for e in events if e.name == "module"] == [1, 2, 3, 4, 5, 6]


def test_a_dropped_event_stream_resumes_after_the_last_id(
    http: httpx.Client, done: dict[str, Any]
) -> None:
    path = f"/v1/jobs/{done['id']}/events"

    def read(headers: dict[str, str], most: int) -> list[Any]:
        with http.stream("GET", path, headers=headers) as stream:
            found = parse_events(stream.iter_lines())
            return [event for event, _ in zip(found, range(most), strict=False)]

    first = read({}, 4)
    rest = read({"Last-Event-ID": first[-1].id}, 100)
    whole = read({}, 100)
    assert [e.id for e in first + rest] == [e.id for e in whole]
    ended = http.get(path, headers={"Last-Event-ID": whole[-1].id})
    assert ended.status_code == 204  # EventSource stops reconnecting


def test_an_event_id_that_is_not_ours_is_refused(http: httpx.Client, done: dict[str, Any]) -> None:
    answer = http.get(f"/v1/jobs/{done['id']}/events", headers={"Last-Event-ID": "nonsense"})
    assert answer.status_code == 422
    assert answer.json()["field"] == "Last-Event-ID"


def test_the_report_follows_its_published_schema(http: httpx.Client, done: dict[str, Any]) -> None:
    report = http.get(f"/v1/jobs/{done['id']}/report").json()
    schema = http.get("/v1/schemas/report").json()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(report)
    assert report["summary"]["projected"] == 6
    assert report["base_model"]["id"] == "base"


@pytest.mark.parametrize(
    ("query", "accept", "media", "sign"),
    [
        ({}, "*/*", "application/json", '"schema_version": "1"'),
        ({}, "application/json", "application/json", '"layers"'),
        ({}, "text/csv", "text/csv", "module,layer,kind"),
        ({}, "text/html,application/xml;q=0.9", "text/html", "<!doctype html>"),
        ({}, "text/markdown, text/html;q=0.5", "text/markdown", "| module |"),
        ({"format": "csv"}, "text/html", "text/csv", "module,layer,kind"),
        ({"format": "markdown"}, "*/*", "text/markdown", "| module |"),
        ({"format": "html"}, "*/*", "text/html", "<table>"),
        ({"format": "sarif"}, "*/*", "application/sarif+json", '"ruleId": "ASF001"'),
        ({}, "application/sarif+json", "application/sarif+json", '"version": "2.1.0"'),
    ],
)
def test_the_report_comes_in_the_form_that_was_asked_for(
    http: httpx.Client,
    done: dict[str, Any],
    query: dict[str, str],
    accept: str,
    media: str,
    sign: str,
) -> None:
    path = f"/v1/jobs/{done['id']}/report"
    answer = http.get(path, params=query, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(media)
    assert sign in answer.text
    assert "model.layers.1.self_attn.v_proj" in answer.text


SELECTIONS = [
    ({"threshold": "0.4"}, {"by": "threshold", "value": 0.4}),
    ({"count": "2"}, {"by": "count", "value": 2}),
    ({"fraction": "0.5"}, {"by": "fraction", "value": 0.5}),
    ({"all": "true"}, {"by": "all"}),
]


@pytest.mark.parametrize(("query", "select"), SELECTIONS, ids=str)
def test_another_selection_is_decided_at_once_as_a_job_would(
    http: httpx.Client,
    done: dict[str, Any],
    adapter: str,
    query: dict[str, str],
    select: dict[str, object],
) -> None:
    asked = http.get(f"/v1/jobs/{done['id']}/report", params=query).json()
    job = http.post("/v1/jobs", json=body(adapter, method={"select": select}), headers=WAIT).json()
    real = http.get(f"/v1/jobs/{job['id']}/report").json()
    assert (asked.pop("what_if"), real.pop("what_if")) == (True, False)
    assert_alike(wherever_from(asked), wherever_from(real))


def test_another_selection_comes_in_every_form(http: httpx.Client, done: dict[str, Any]) -> None:
    path = f"/v1/jobs/{done['id']}/report"
    rows = http.get(path, params={"count": 1, "format": "csv"}).text
    assert [row["decision"] for row in csv.DictReader(io.StringIO(rows))].count("projected") == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"threshold": "0.4", "count": "2"}, "count"),
        ({"threshold": "7"}, "threshold"),
        ({"count": "x"}, "count"),
        ({"fraction": "nan"}, "fraction"),
    ],
)
def test_another_selection_that_means_nothing_is_refused(
    http: httpx.Client, done: dict[str, Any], query: dict[str, str], field: str
) -> None:
    answer = http.get(f"/v1/jobs/{done['id']}/report", params=query)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_a_score_has_the_patchs_report_and_no_adapter(
    http: httpx.Client, done: dict[str, Any], adapter: str
) -> None:
    job = http.post("/v1/jobs", json=body(adapter, kind="score", method=ALL), headers=WAIT).json()
    assert (job["status"], set(job["links"])) == ("succeeded", {"self", "events", "report"})
    scored = http.get(f"/v1/jobs/{job['id']}/report").json()
    patched = http.get(f"/v1/jobs/{done['id']}/report").json()
    for report, kind, verdict in ((scored, "score", "scored"), (patched, "patch", "patched")):
        assert (report.pop("kind"), report.pop("verdict")) == (kind, verdict)
    assert_alike(wherever_from(scored), wherever_from(patched))
    answer = http.get(f"/v1/jobs/{job['id']}/adapter")
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (404, "result-not-found")


@pytest.mark.parametrize(
    ("method", "factor"), [({"name": "prune"}, 0.0), ({"name": "scale", "factor": 0.25}, 0.25)]
)
def test_a_baseline_changes_the_same_modules_its_own_way(
    http: httpx.Client, adapter: str, llama_world: World, method: dict[str, Any], factor: float
) -> None:
    method = {**method, "select": {"by": "count", "value": 2}}
    job = http.post("/v1/jobs", json=body(adapter, method=method), headers=WAIT).json()
    report = http.get(f"/v1/jobs/{job['id']}/report").json()
    with zipfile.ZipFile(io.BytesIO(http.get(job["links"]["adapter"]).content)) as archive:
        after = load(archive.read(WEIGHTS_FILE))
    before = load_file(llama_world.adapter / WEIGHTS_FILE)
    for layer in report["layers"]:
        name = f"base_model.model.{layer['module']}.lora_B.weight"
        chosen = layer["decision"] == "projected"
        assert after[name].equal(before[name] * (factor if chosen else 1.0))
        assert 0 < layer["pdst"] < 1
    assert report["summary"]["projected"] == 2


def test_the_csv_has_the_same_numbers_as_the_json(http: httpx.Client, done: dict[str, Any]) -> None:
    path = f"/v1/jobs/{done['id']}/report"
    layers = http.get(path).json()["layers"]
    rows = list(csv.DictReader(io.StringIO(http.get(path, params={"format": "csv"}).text)))
    assert [float(row["cosine"]) for row in rows] == [layer["cosine"] for layer in layers]


def test_a_form_that_does_not_exist_is_refused(http: httpx.Client, done: dict[str, Any]) -> None:
    path = f"/v1/jobs/{done['id']}/report"
    assert http.get(path, params={"format": "pdf"}).json()["field"] == "format"
    assert http.get(path, headers={"Accept": "image/png"}).status_code == 406


def test_the_download_is_a_patched_peft_folder(
    http: httpx.Client, done: dict[str, Any], llama_world: World
) -> None:
    answer = http.get(f"/v1/jobs/{done['id']}/adapter")
    digest = hashlib.sha256(answer.content)
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert (
        answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    )
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert tuple(archive.namelist()) == PATCHED_FILES
        patched = load(archive.read(WEIGHTS_FILE))
    before = load_file(llama_world.adapter / WEIGHTS_FILE)
    assert {k: (v.shape, v.dtype) for k, v in patched.items()} == {
        k: (v.shape, v.dtype) for k, v in before.items()
    }


@pytest.mark.parametrize(
    ("header", "begin", "end"),
    [("bytes=0-99", 0, 100), ("bytes=100-", 100, None), ("bytes=-50", -50, None)],
)
def test_a_range_gives_that_part(
    http: httpx.Client, done: dict[str, Any], header: str, begin: int, end: int | None
) -> None:
    path = f"/v1/jobs/{done['id']}/adapter"
    whole = http.get(path).content
    part = http.get(path, headers={"Range": header})
    assert part.status_code == 206
    assert part.content == whole[begin:end]
    first = begin % len(whole)
    assert part.headers["content-range"] == (
        f"bytes {first}-{first + len(part.content) - 1}/{len(whole)}"
    )


def test_the_download_is_described_without_its_bytes(
    http: httpx.Client, done: dict[str, Any]
) -> None:
    path = f"/v1/jobs/{done['id']}/adapter"
    whole, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "repr-digest", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]


def test_a_patched_adapter_may_be_patched_again(http: httpx.Client, done: dict[str, Any]) -> None:
    patched = http.get(f"/v1/jobs/{done['id']}/adapter").content
    answer = http.post("/v1/adapters", files={"archive": ("patched.zip", patched)})
    assert answer.status_code in (200, 201)
    assert "safety_report.json" not in answer.json()["files"]


def test_range_conditions_are_kept(http: httpx.Client, done: dict[str, Any]) -> None:
    path = f"/v1/jobs/{done['id']}/adapter"
    etag = http.get(path).headers["etag"]
    part = {"Range": "bytes=0-9"}
    assert http.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert http.get(path, headers={**part, "If-Range": etag}).status_code == 206
    assert http.get(path, headers={**part, "If-Range": '"old"'}).status_code == 200
    assert http.get(path, headers={"Range": "bytes=0-1,5-6"}).status_code == 200
    beyond = http.get(path, headers={"Range": "bytes=999999999-"})
    assert (beyond.status_code, beyond.headers["content-range"][:8]) == (416, "bytes */")


def test_a_repeated_post_with_the_same_key_is_one_job(http: httpx.Client, adapter: str) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = http.post("/v1/jobs", json=body(adapter), headers=key)
    again = http.post("/v1/jobs", json=body(adapter), headers=key)
    other = http.post("/v1/jobs", json=body(adapter, method=ALL), headers=key)
    assert first.json()["id"] == again.json()["id"]
    assert other.status_code == 422
    assert other.json()["type"].endswith(":idempotency-key-reused")
    without = http.post("/v1/jobs", json=body(adapter))
    assert without.json()["id"] != first.json()["id"]


def test_jobs_are_listed_by_status_page_by_page(http: httpx.Client, done: dict[str, Any]) -> None:
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get("/v1/jobs", params={"status": "succeeded", "limit": 2, **cursor}).json()
        assert all(job["status"] == "succeeded" for job in page["items"])
        seen += [job["id"] for job in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert done["id"] in seen
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"status": "sleeping"}, "status"),
        ({"kind": "dance"}, "kind"),
        ({"cursor": "%%%"}, "cursor"),
    ],
)
def test_a_bad_listing_names_its_parameter(
    http: httpx.Client, query: dict[str, str], field: str
) -> None:
    answer = http.get("/v1/jobs", params=query)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_a_finished_job_cannot_be_cancelled(http: httpx.Client, done: dict[str, Any]) -> None:
    answer = http.delete(f"/v1/jobs/{done['id']}")
    assert answer.status_code == 409
    assert answer.json()["type"].endswith(":job-already-finished")


def test_an_unknown_job_is_a_404_problem_everywhere(http: httpx.Client) -> None:
    for path in ("", "/events", "/report", "/adapter"):
        answer = http.get(f"/v1/jobs/nope{path}")
        assert answer.status_code == 404
        assert answer.json()["type"].endswith(":job-not-found")
    assert http.delete("/v1/jobs/nope").status_code == 404


METHOD_FAULTS = [
    ({"name": "magic"}, "method.name"),
    ({"projector": "orthogonal"}, "method.projector"),
    ({"projector": "subspace", "energy": 2}, "method.energy"),
    ({"projector": "subspace", "energy": 0.5, "rank": 3}, "method.rank"),
    ({"energy": "0.5"}, "method.energy"),
    ({"select": {"by": "threshold"}}, "method.select.value"),
    ({"select": {"by": "threshold", "value": 7}}, "method.select.value"),
    ({"select": {"by": "nearest", "value": 1}}, "method.select.by"),
    ({"select": {"by": "count", "value": -1}}, "method.select.value"),
    ({"select": {"by": "count", "value": 2.5}}, "method.select.value"),
    ({"select": {"by": "count", "value": 10**400}}, "method.select.value"),
    ({"select": {"by": "threshold", "value": -(10**400)}}, "method.select.value"),
    ({"select": {"by": "count", "value": 7}}, "method.select.value"),
    ({"select": {"by": "fraction", "value": True}}, "method.select.value"),
    ({"select": {"threshold": 0.5, "count": 2}}, "method.select"),
    ({"threshold": 0.5}, "method.threshold"),
    ({"name": "scale"}, "method.factor"),
    ({"name": "scale", "factor": 1.5}, "method.factor"),
    ({"name": "prune", "factor": 0.5}, "method.factor"),
    ({"name": "prune", "rescale": "preserve_norm"}, "method.rescale"),
    ({"rescale": "double"}, "method.rescale"),
]


@pytest.mark.parametrize(("method", "field"), METHOD_FAULTS, ids=str)
def test_a_method_that_means_nothing_is_refused_by_field(
    http: httpx.Client, adapter: str, method: dict[str, object], field: str
) -> None:
    count = len(http.get("/v1/jobs", params={"limit": 200}).json()["items"])
    answer = http.post("/v1/jobs", json=body(adapter, method=method))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"].startswith(field)
    assert len(http.get("/v1/jobs", params={"limit": 200}).json()["items"]) == count


@pytest.mark.parametrize(
    ("changes", "status", "code", "culprit"),
    [
        ({"adapter": "0" * 64}, 404, "adapter-not-found", "000"),
        ({"base_model": "nowhere"}, 422, "unknown-model", "nowhere"),
        ({"chat_model": "gone"}, 422, "unknown-model", "chat_model"),
        ({"base_model": "../base"}, 422, "invalid-field", "base_model"),
        ({"base_model": "/etc"}, 422, "invalid-field", "base_model"),
        ({"base_model": "a/b/c"}, 422, "invalid-field", "base_model"),
        ({"base_model": "base\u0000"}, 422, "invalid-field", "base_model"),
        ({"base_model": "x" * 5000}, 422, "invalid-field", "base_model"),
        ({"base_model": 5}, 422, "invalid-field", "base_model"),
        ({"kind": "train"}, 422, "invalid-field", "kind"),
        ({"extra": 1}, 422, "invalid-field", "extra"),
        ({"chat_model": "base"}, 422, "invalid-field", "chat_model"),
        ({"base_model": "adapter"}, 422, "checkpoint-refused", "config.json"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused_by_name(
    http: httpx.Client,
    adapter: str,
    changes: dict[str, object],
    status: int,
    code: str,
    culprit: str,
) -> None:
    answer = http.post("/v1/jobs", json=body(adapter, **changes))
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (status, code)
    assert culprit in answer.json()["detail"]
    assert "/tmp" not in answer.text


def test_json_that_is_none_is_a_400_problem(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    huge = http.post(
        "/v1/jobs",
        content=b'"' + b"x" * (2 << 20) + b'"',
        headers={"Content-Type": "application/json"},
    )
    assert huge.status_code == 413
    assert huge.headers["content-type"] == "application/problem+json"


@pytest.fixture(scope="module")
def other_models(model_root: Path) -> None:
    """Models that do not fit the adapter: another shape, another architecture, a broken one."""
    make_world(model_root / "gpt", "gpt2")
    changes = (("narrow", "q_proj", 8), ("narrower", "q_proj", 8), ("lacking", "v_proj", None))
    for name, key, cut in changes:
        folder = model_root / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_bytes((model_root / "chat" / "config.json").read_bytes())
        tensors = load_file(model_root / "chat" / "model.safetensors")
        for tensor in [t for t in tensors if key in t]:
            if cut:
                tensors[tensor] = tensors[tensor][:cut].clone()
            else:
                del tensors[tensor]
        save_file(tensors, folder / "model.safetensors")


@pytest.mark.usefixtures("other_models")
@pytest.mark.parametrize(
    ("changes", "code", "culprit"),
    [
        ({"chat_model": "narrow"}, "model-shapes-differ", "model.layers.0.self_attn.q_proj"),
        ({"chat_model": "lacking"}, "modules-not-in-model", "model.layers.1.self_attn.v_proj"),
        (
            {"base_model": "narrow", "chat_model": "narrower"},
            "adapter-shapes-differ",
            "model.layers.0.self_attn.q_proj",
        ),
        ({"base_model": "gpt/base"}, "checkpoint-refused", "gpt2"),
        ({"base_model": "gpt/base", "chat_model": "gpt/chat"}, "modules-not-in-model", "q_proj"),
    ],
)
def test_models_that_do_not_fit_are_refused_with_the_modules_listed(
    http: httpx.Client, adapter: str, changes: dict[str, str], code: str, culprit: str
) -> None:
    answer = http.post("/v1/jobs", json=body(adapter, **changes))
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(code)
    assert culprit in answer.json()["detail"]


def test_nan_in_an_adapter_fails_the_job_with_the_tensors_name(
    http: httpx.Client, llama_world: World, tmp_path: Path
) -> None:
    tensors = load_file(llama_world.adapter / WEIGHTS_FILE)
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    tensors[name][3, 1] = float("nan")
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    files = parts(llama_world.adapter)
    files["weights"] = (WEIGHTS_FILE, (tmp_path / WEIGHTS_FILE).read_bytes())
    sent = http.post("/v1/adapters", files=files).json()["id"]
    job = http.post("/v1/jobs", json=body(sent), headers=WAIT).json()
    assert job["status"] == "failed"
    assert job["problem"]["type"].endswith(":non-finite-tensor")
    assert job["problem"]["tensor"] == name
    assert http.get(f"/v1/jobs/{job['id']}/adapter").status_code == 404
    waited = http.post(
        "/v1/patch", files=files, data={"base_model": "base", "chat_model": "chat"}, headers=WAIT
    )
    assert waited.status_code == 422
    assert waited.json()["tensor"] == name


MODELS = {"base_model": "base", "chat_model": "chat"}


def test_one_call_gives_the_patched_zip(http: httpx.Client, llama_world: World) -> None:
    fields = {**MODELS, "projector": "complement", "energy": "0.5", "fraction": "0.5"}
    answer = http.post("/v1/patch", files=parts(llama_world.adapter), data=fields, headers=WAIT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    job = http.get(answer.headers["location"]).json()
    assert job["method"]["projector"] == "complement"
    assert job["method"]["select"] == {"by": "fraction", "value": 0.5}
    report = json.loads(zipfile.ZipFile(io.BytesIO(answer.content)).read("safety_report.json"))
    assert report["summary"]["projected"] == 3


def test_one_call_without_waiting_gives_the_job(http: httpx.Client, llama_world: World) -> None:
    method = json.dumps({"projector": "exact", "select": {"by": "all"}})
    answer = http.post(
        "/v1/patch", files=parts(llama_world.adapter), data={**MODELS, "method": method}
    )
    assert answer.status_code == 202
    assert answer.json()["method"]["projector"] == "exact"
    assert answer.headers["location"] == answer.json()["links"]["self"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"threshold": "0.5", "count": "2"}, "count"),
        ({"count": "two"}, "count"),
        ({"threshold": "nan"}, "method.select.value"),
        ({"projector": "magic"}, "method.projector"),
        ({"method": '{"projector": "exact"}', "count": "2"}, "count"),
        ({"method": '{"name": "magic"}'}, "method.name"),
        ({"all": "perhaps"}, "all"),
        ({"surprise": "1"}, "surprise"),
        ({"adapter": "x"}, "adapter"),
        ({"base_model": "../x"}, "base_model"),
    ],
)
def test_one_call_with_bad_fields_is_refused_and_stores_nothing(
    service: Service, http: httpx.Client, llama_world: World, fields: dict[str, str], field: str
) -> None:
    files = {**parts(llama_world.adapter), "readme": ("README.md", f"{fields}".encode())}
    before = http.get("/v1/adapters").json()
    answer = http.post("/v1/patch", files=files, data={**MODELS, **fields}, headers=WAIT)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert http.get("/v1/adapters").json() == before


def test_health_and_description_answer(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    until(lambda: http.get("/readyz").json()["workers"], "the worker has imported torch")
    assert http.get("/readyz").json() == {
        "parts": {"database": True, "storage": True, "broker": True},
        "workers": 1,
    }
    assert http.get("/docs").status_code == 200
    described = http.get("/openapi.json").json()
    assert "/v1/patch" in described["paths"]
    assert "examples" in json.dumps(described["components"]["schemas"]["JobIn"])


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/v1/jobs", 405)]
)
def test_even_the_frameworks_own_errors_are_problems(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "wait=1.5"])
def test_a_wait_that_is_no_number_is_refused(http: httpx.Client, adapter: str, prefer: str) -> None:
    answer = http.post("/v1/jobs", json=body(adapter), headers={"Prefer": prefer})
    assert (answer.status_code, answer.json()["field"]) == (422, "Prefer")
