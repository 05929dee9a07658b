"""SaLoRA from a data set to an ordinary LoRA, over real HTTP, queue and worker."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.alignment.salora import attach
from app.client import parse_events
from app.domain.adapter import CONFIG_FILE, PATCHED_FILES, WEIGHTS_FILE
from app.domain.dataset import Message, Row
from tests.jsonl import as_jsonl
from tests.workers.salora_world import refusals, task

WAIT = {"Prefer": "wait=60"}
SHORT = {"max_length": 32}
TARGETS = ["q_proj", "v_proj", "down_proj"]


@dataclass(frozen=True)
class Made:
    """What the jobs of one service left, by their answers."""

    http: httpx.Client
    chat: Path
    safety_set: str
    task_set: str
    module: dict[str, Any]
    kit: dict[str, Any]

    def model(self) -> PreTrainedModel:
        found: PreTrainedModel = AutoModelForCausalLM.from_pretrained(self.chat)
        return found.eval()

    def bases(self, folder: Path) -> Mapping[str, Tensor]:
        path = folder / SAFETY_MODULE_FILE
        path.write_bytes(self.http.get(f"{self.module['links']['safety_module']}/file").content)
        return SafetyModule.load(path).bases

    def train(self, **changes: Any) -> dict[str, Any]:
        body = {"kit": self.kit_id, "dataset": self.task_set, "learning_rate": 0.01,
                "batch_size": 8, "checkpoint_steps": 2, **SHORT, **changes}  # fmt: skip
        return job(self.http, "salora_train", **body)

    @property
    def kit_id(self) -> str:
        return str(self.kit["links"]["kit"].rpartition("/")[2])


def job(http: httpx.Client, kind: str, **body: Any) -> dict[str, Any]:
    asked = {"kind": kind, "chat_model": "talk", **body}
    answer = http.post("/v1/jobs", json=asked, headers=WAIT)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def succeeded(found: dict[str, Any]) -> dict[str, Any]:
    assert found["status"] == "succeeded", found["problem"]
    return found


def upload(http: httpx.Client, raw: bytes, **query: str) -> dict[str, Any]:
    sent = {"Content-Type": "application/jsonl"}
    answer = http.post("/v1/datasets", content=raw, headers=sent, params=query)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def unpacked(http: httpx.Client, path: str, folder: Path) -> Path:
    with zipfile.ZipFile(BytesIO(http.get(path).content)) as packed:
        packed.extractall(folder)
    return folder


def logits(model: torch.nn.Module) -> Tensor:
    ids = torch.randint(8, 50, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=ids).logits
    return found


@pytest.fixture(scope="module")
def made(http: httpx.Client, model_root: Path) -> Made:
    safety_set = upload(http, as_jsonl(refusals()))["id"]
    task_set = upload(http, as_jsonl(task(24)))["id"]
    asked = {"dataset": safety_set, "target_modules": TARGETS, "rank": 6, **SHORT}
    module = succeeded(job(http, "safety_module", **asked))
    part = module["links"]["safety_module"].rpartition("/")[2]
    start = {"safety_module": part, "dataset": task_set, "rank": 4, "task_rank": 8, **SHORT}
    kit = succeeded(job(http, "salora_init", **start))
    return Made(http, model_root / "talk", safety_set, task_set, module, kit)


def test_a_data_set_says_how_many_rows_and_tokens_it_has(made: Made) -> None:
    found = upload(made.http, as_jsonl(refusals()), chat_model="talk")
    assert (found["id"], found["rows"]) == (made.safety_set, 20)
    responses = sum(len(row.messages[1].content) for row in refusals())
    assert found["tokens"]["talk"]["response"] == responses  # a token is a letter there


def test_the_same_question_is_answered_from_what_is_kept(made: Made) -> None:
    asked = {"dataset": made.safety_set, "target_modules": TARGETS, "rank": 6, **SHORT}
    again = succeeded(job(made.http, "safety_module", **asked))
    assert again["links"]["safety_module"] == made.module["links"]["safety_module"]
    events = made.http.get(f"/v1/jobs/{again['id']}/events").text
    assert "event: batch" not in events  # no row went through the model again
    listed = made.http.get("/v1/safety-modules").json()["items"]
    assert again["links"]["safety_module"].endswith(tuple(part["id"] for part in listed))
    one, two = (made.http.get(f"/v1/jobs/{j['id']}/report").json() for j in (made.module, again))
    assert one == two


def test_another_rank_is_another_safety_module(made: Made) -> None:
    asked = {"dataset": made.safety_set, "target_modules": TARGETS, "rank": 5, **SHORT}
    other = succeeded(job(made.http, "safety_module", **asked))
    assert other["links"]["safety_module"] != made.module["links"]["safety_module"]


def test_the_kit_starts_as_the_chat_model(made: Made, tmp_path: Path) -> None:
    folder = unpacked(made.http, f"{made.kit['links']['kit']}/file", tmp_path)
    model = PeftModel.from_pretrained(made.model(), str(folder), is_trainable=True)
    attach(model, folder)
    assert torch.equal(logits(model), logits(made.model()))


def test_a_training_gives_an_ordinary_lora_that_moves_nothing_along_v_s(
    made: Made, tmp_path: Path
) -> None:
    found = succeeded(made.train(epochs=2))
    assert found["checkpoint"] is None
    archive = made.http.get(found["links"]["adapter"])
    with zipfile.ZipFile(BytesIO(archive.content)) as packed:
        assert sorted(packed.namelist()) == sorted(PATCHED_FILES)
        assert json.loads(packed.read(CONFIG_FILE))["r"] == 8
    folder = unpacked(made.http, found["links"]["adapter"], tmp_path / "adapter")
    model = PeftModel.from_pretrained(made.model(), str(folder))
    assert (logits(model) - logits(made.model())).abs().max() > 1e-3
    for name, v in made.bases(tmp_path).items():
        delta = model.get_base_model().get_submodule(name).get_delta_weight("default").double()
        assert torch.linalg.norm(v.double().T @ delta) < 1e-5 * torch.linalg.norm(delta)


def test_the_report_of_a_training_has_its_curve_in_every_form(made: Made) -> None:
    found = succeeded(made.train())
    at = f"/v1/jobs/{found['id']}/report"
    report = made.http.get(at).json()
    curve = report["training"]["curve"]
    assert [step["step"] for step in curve] == [1, 2, 3]
    assert report["data"][0]["rows"] == 24
    assert all(module["safety_share"] < 1e-5 for module in report["modules"])
    page = made.http.get(at, params={"format": "html"}).text
    assert page.count("<polyline") == 2
    assert "3 steps, loss" in made.http.get(at, params={"format": "markdown"}).text
    csv = made.http.get(at, params={"format": "csv"}).text
    assert csv.startswith("module,shape,rank,trained_rank,update_norm,safety_share,error")
    assert made.http.get(at, params={"threshold": 0.5}).status_code == 422


def test_the_events_of_a_training_tell_its_loss(made: Made) -> None:
    found = succeeded(made.train())
    text = made.http.get(f"/v1/jobs/{found['id']}/events").text
    steps = [event.data for event in parse_events(iter(text.split("\n"))) if event.name == "step"]
    assert [(step["done"], step["total"]) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert all(step["loss"] > 0 and step["tokens_per_s"] > 0 for step in steps)


def test_a_plain_lora_is_trained_with_the_same_settings_to_compare(
    made: Made, tmp_path: Path
) -> None:
    found = succeeded(made.train(plain_lora=True))
    report = made.http.get(f"/v1/jobs/{found['id']}/report").json()
    assert any("ordinary LoRA" in warning for warning in report["warnings"])
    assert max(module["safety_share"] for module in report["modules"]) > 1e-3
    folder = unpacked(made.http, found["links"]["adapter"], tmp_path)
    assert json.loads((folder / CONFIG_FILE).read_bytes())["r"] == 4
    PeftModel.from_pretrained(made.model(), str(folder))


def trained_elsewhere(made: Made, folder: Path) -> tuple[PeftModel, Path]:
    """In a script of the user's own, with the kit attached."""
    kit = unpacked(made.http, f"{made.kit['links']['kit']}/file", folder / "kit")
    model = PeftModel.from_pretrained(made.model(), str(kit), is_trainable=True)
    attach(model, kit)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    ids = torch.randint(8, 50, (2, 12))
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.peft_config["default"].base_model_name_or_path = str(made.chat)
    model.save_pretrained(str(folder / "trained"))
    return model, folder / "trained"


@pytest.mark.parametrize("rank", [None, 5])
def test_what_was_trained_elsewhere_is_exported(
    made: Made, tmp_path: Path, rank: int | None
) -> None:
    model, folder = trained_elsewhere(made, tmp_path)
    files = {
        "config": (folder / CONFIG_FILE).read_bytes(),
        "weights": (folder / WEIGHTS_FILE).read_bytes(),
    }
    adapter = made.http.post("/v1/adapters", files=files).json()["id"]
    found = succeeded(job(made.http, "salora_export", adapter=adapter, kit=made.kit_id, rank=rank))
    report = made.http.get(f"/v1/jobs/{found['id']}/report").json()
    out = unpacked(made.http, found["links"]["adapter"], tmp_path / "out")
    exported = PeftModel.from_pretrained(made.model(), str(out))
    if rank is None:
        assert torch.allclose(logits(exported), logits(model), atol=1e-5)
        assert {module["rank"] for module in report["modules"]} == {8}
    for module in report["modules"]:
        layer = exported.get_base_model().get_submodule(module["module"])
        trained = model.get_base_model().get_submodule(module["module"])
        wanted = trained.lora_variant["default"].delta(trained, "default").detach().double()
        found_delta = layer.get_delta_weight("default").detach().double()
        lost = torch.linalg.norm(found_delta - wanted)
        assert float(lost / torch.linalg.norm(wanted)) == pytest.approx(
            module["error"] or 0.0, abs=1e-5
        )


def test_what_was_trained_with_a_kit_is_not_patched_before_it_is_exported(
    made: Made, tmp_path: Path
) -> None:
    _, folder = trained_elsewhere(made, tmp_path)
    files = {
        "config": (folder / CONFIG_FILE).read_bytes(),
        "weights": (folder / WEIGHTS_FILE).read_bytes(),
    }
    adapter = made.http.post("/v1/adapters", files=files).json()["id"]
    part = made.module["links"]["safety_module"].rpartition("/")[2]
    method = {"name": "salora", "safety_module": part}
    body = {"kind": "patch", "chat_model": "talk", "adapter": adapter, "method": method}
    refused = made.http.post("/v1/jobs", json=body)
    assert refused.status_code == 422
    assert "export it first" in refused.json()["detail"]
    fields = {"chat_model": "talk", "method": json.dumps(method)}
    refused = made.http.post("/v1/patch", data=fields, files=files)
    assert refused.status_code == 422
    assert "export it first" in refused.json()["detail"]


def test_a_safety_module_is_put_on_a_trained_adapter(made: Made, tmp_path: Path) -> None:
    plain = succeeded(made.train(plain_lora=True))
    folder = unpacked(made.http, plain["links"]["adapter"], tmp_path / "plain")
    files = {
        "config": (folder / CONFIG_FILE).read_bytes(),
        "weights": (folder / WEIGHTS_FILE).read_bytes(),
    }
    adapter = made.http.post("/v1/adapters", files=files).json()["id"]
    part = made.module["links"]["safety_module"].rpartition("/")[2]
    method = {"name": "salora", "safety_module": part, "select": {"by": "all"}}
    found = succeeded(job(made.http, "patch", adapter=adapter, method=method))
    assert found["base_model"] is None
    report = made.http.get(f"/v1/jobs/{found['id']}/report").json()
    assert {layer["decision"] for layer in report["layers"]} == {"projected"}
    packed = zipfile.ZipFile(BytesIO(made.http.get(found["links"]["adapter"]).content))
    weights = load(packed.read(WEIGHTS_FILE))
    for name, v in made.bases(tmp_path).items():
        b = weights[f"base_model.model.{name}.lora_B.weight"].double()
        assert torch.linalg.norm(v.double().T @ b) < 1e-5 * torch.linalg.norm(b)
    page = made.http.get(f"/v1/jobs/{found['id']}/report", params={"format": "html"})
    assert "share in V_s" in page.text


def test_a_response_that_is_cut_off_fails_with_its_line(made: Made) -> None:
    found = job(made.http, "safety_module", dataset=made.safety_set, max_length=8)
    assert found["status"] == "failed"
    assert found["problem"]["type"].endswith("responses-cut-off")
    assert found["problem"]["line"] == 1


def test_a_model_without_a_tokenizer_fails_with_its_name(made: Made) -> None:
    found = made.http.post(
        "/v1/jobs",
        json={"kind": "safety_module", "chat_model": "chat", "dataset": made.safety_set},
        headers=WAIT,
    ).json()
    assert found["status"] == "failed"
    assert found["problem"]["type"].endswith("tokenizer-refused")
    assert "chat_model chat" in found["problem"]["detail"]


def test_a_loss_that_is_no_number_fails_and_the_last_good_checkpoint_is_kept_and_named(
    made: Made,
) -> None:
    model = {"chat_model": "breaks", **SHORT}
    module = succeeded(job(made.http, "safety_module", dataset=made.safety_set, rank=4, **model))
    part = module["links"]["safety_module"].rpartition("/")[2]
    kit = succeeded(job(made.http, "salora_init", safety_module=part, rank=4, **model))
    rows = [*task(39), Row(40, (Message("user", "add"), Message("assistant", "zzz")))]
    dataset = upload(made.http, as_jsonl(rows))["id"]
    found = job(
        made.http, "salora_train", kit=kit["links"]["kit"].rpartition("/")[2], dataset=dataset,
        batch_size=1, checkpoint_steps=1, **model,
    )  # fmt: skip
    assert found["status"] == "failed"
    problem, kept = found["problem"], found["checkpoint"]
    assert problem["type"].endswith("non-finite-loss")
    assert problem["step"] > 1  # the seed puts the row there
    assert kept["step"] == problem["step"] - 1
    assert f"the last good checkpoint is that of step {kept['step']}" in problem["detail"]


def test_a_training_is_cancelled_at_a_step(made: Made) -> None:
    body = {"kind": "salora_train", "chat_model": "talk", "kit": made.kit_id,
            "dataset": made.task_set, "epochs": 1000, "batch_size": 1, **SHORT}  # fmt: skip
    started = made.http.post("/v1/jobs", json=body).json()
    with made.http.stream("GET", f"/v1/jobs/{started['id']}/events") as stream:
        for event in parse_events(stream.iter_lines()):
            if event.name == "step":
                made.http.delete(f"/v1/jobs/{started['id']}")
                break
        else:
            raise AssertionError("the training never began")
    with made.http.stream("GET", f"/v1/jobs/{started['id']}/events") as stream:
        *_, last = parse_events(stream.iter_lines())
    assert last.name == "cancelled"
    assert made.http.get(f"/v1/jobs/{started['id']}").json()["status"] == "cancelled"
