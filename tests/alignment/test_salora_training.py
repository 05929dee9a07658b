"""SaLoRA in the training loops that people use: Trainer, TRL, accelerate, 16 and 8 bits, resume."""

import copy
import shutil
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from app.alignment.salora import SaloraVariant, attach
from tests.alignment.attached import (
    FLOAT32,
    GUARANTEE,
    layers,
    logits,
    moved,
    offline,
    steps,
    tokens,
)
from tests.chat_models import letters
from tests.workers.salora_world import TARGETS, SaloraWorld, make_salora_world

BFLOAT16 = 2e-2  # of logits, relative to the largest


@pytest.fixture(scope="module", params=TARGETS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp("llama"))


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings = {
        "output_dir": str(folder), "max_steps": 6, "per_device_train_batch_size": 2,
        "learning_rate": 1e-2, "save_steps": 3, "report_to": [], "use_cpu": True, "seed": 3,
        "disable_tqdm": True, "logging_steps": 1,
    }  # fmt: skip
    return TrainingArguments(**{**settings, **changes})


def examples() -> list[dict[str, Tensor]]:
    return [{"input_ids": row, "labels": row} for row in tokens(8)]


def trained(world: SaloraWorld, folder: Path, **changes: Any) -> Trainer:
    model = offline(world.attached(), world)
    trainer = Trainer(model=model, args=arguments(folder, **changes), train_dataset=examples())
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation_checkpointing": True}],
    ids=["as it is", "with gradient checkpointing"],
)
def test_trainer_keeps_the_guarantee(
    world: SaloraWorld, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = trained(world, tmp_path, **changes).model.eval()
    assert max(moved(model)) < GUARANTEE
    assert (logits(model) - logits(world.model())).abs().max() > 1e-3


def test_gradient_checkpointing_gives_the_same_gradients(llama: SaloraWorld) -> None:
    found = []
    for with_checkpointing in (False, True):
        model = llama.attached().train()
        if with_checkpointing:
            model.get_base_model().activation_checkpointing_enable()
        model.enable_input_require_grads()
        model(input_ids=tokens(), labels=tokens()).loss.backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 0
    assert all(torch.allclose(x, y, atol=1e-7) for x, y in zip(*found, strict=True))


def test_under_bfloat16_autocast_the_fresh_model_is_the_chat_model(llama: SaloraWorld) -> None:
    model, plain = llama.attached(), llama.model()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits(model), logits(plain))


def test_trained_in_bfloat16_the_weights_keep_the_guarantee(
    llama: SaloraWorld, tmp_path: Path
) -> None:
    model = offline(llama.attached("bfloat16"), llama)
    Trainer(model=model, args=arguments(tmp_path, bf16=True), train_dataset=examples()).train()
    for _, layer in layers(model):
        variant = layer.lora_variant["default"]
        delta = variant.delta(layer, "default").double().detach()
        inside = variant.kit.safety.double().T @ delta
        assert torch.linalg.norm(inside) < GUARANTEE * torch.linalg.norm(delta)
        assert torch.linalg.norm(delta) > 0


def test_in_bfloat16_the_forward_pass_is_that_of_float32_within_its_rounding(
    llama: SaloraWorld,
) -> None:
    model = llama.attached()
    list(steps(model, 3))
    wanted = logits(model)
    with torch.autocast("cpu", torch.bfloat16):
        found = logits(model)
    assert (found - wanted).abs().max() < BFLOAT16 * wanted.abs().max()


def test_a_saved_adapter_is_attached_again_from_its_own_folder(
    llama: SaloraWorld, tmp_path: Path
) -> None:
    model = llama.attached()
    list(steps(model, 3))
    offline(model, llama).save_pretrained(str(tmp_path))
    with pytest.warns(UserWarning, match="Unexpected keyword arguments"):  # our mark
        again = PeftModel.from_pretrained(llama.model(), str(tmp_path), is_trainable=True)
    attach(again, tmp_path)
    assert torch.allclose(logits(again.eval()), logits(model), atol=1e-7)


def test_resumed_training_ends_where_uninterrupted_training_ends(
    llama: SaloraWorld, tmp_path: Path
) -> None:
    whole = trained(llama, tmp_path / "whole").model.eval()
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "part" / "checkpoint-3")
    model = offline(llama.attached(), llama)
    trainer = Trainer(model=model, args=arguments(tmp_path / "part"), train_dataset=examples())
    trainer.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-3"))
    assert isinstance(next(layers(model))[1].lora_variant["default"], SaloraVariant)
    assert torch.allclose(logits(model.eval()), logits(whole), atol=1e-6)


def test_a_copy_of_an_attached_model_computes_the_same(llama: SaloraWorld) -> None:
    model = llama.attached()
    list(steps(model, 2))
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))


def test_trls_trainer_keeps_the_guarantee(llama: SaloraWorld, tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"add two to {i}"}],
         "completion": [{"role": "assistant", "content": f"that is {i}"}]}
        for i in range(8)
    ]  # fmt: skip
    settings = {**arguments(tmp_path).to_dict(), "max_length": 32, "bf16": False}
    known = {k: v for k, v in settings.items() if k in SFTConfig.__dataclass_fields__}
    model = offline(llama.attached(), llama)
    trainer = SFTTrainer(
        model,
        args=SFTConfig(**known),
        train_dataset=Dataset.from_list(rows),
        processing_class=letters(),
    )
    trainer.train()
    assert max(moved(model.eval())) < GUARANTEE
    assert (logits(model) - logits(llama.model())).abs().max() > 1e-3


def test_a_quantised_base_is_the_quantised_model_until_it_is_trained(llama: SaloraWorld) -> None:
    quantised: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        llama.chat.checkpoint.folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True)
    )
    assert isinstance(
        quantised.get_submodule("model.layers.0.self_attn.q_proj"), bitsandbytes.nn.Linear8bitLt
    )
    before = logits(quantised)
    model = PeftModel.from_pretrained(quantised, llama.kit_folder, is_trainable=True)
    attach(model, llama.kit_folder)
    assert torch.allclose(logits(model.eval()), before, atol=FLOAT32)
    list(steps(model, 2))
    for _, layer in layers(model):
        variant = layer.lora_variant["default"]
        delta = variant.delta(layer, "default").double().detach()
        inside = variant.kit.safety.double().T @ delta
        assert torch.linalg.norm(inside) < GUARANTEE * torch.linalg.norm(delta)


def test_accelerate_keeps_the_guarantee(llama: SaloraWorld) -> None:
    model = llama.attached().train()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    trained = [p for p in model.parameters() if p.requires_grad]
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(trained, lr=0.05))
    for _ in range(4):
        with accelerator.accumulate(prepared):
            loss = prepared(input_ids=tokens(), labels=tokens()).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    assert max(moved(accelerator.unwrap_model(prepared).eval())) < GUARANTEE
    assert (logits(model) - logits(llama.model())).abs().max() > 1e-3
