"""SaLoRA attached to stock PEFT: what it computes, before, during and after real training."""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from app.alignment.kit import Kit
from app.alignment.salora import KitDoesNotFit, SaloraVariant, attach, detach
from tests.chat_models import letters
from tests.workers.salora_world import TARGETS, SaloraWorld, make_salora_world

GUARANTEE = 1e-5  # of ||V_s^T dW|| / ||dW||: float32's rounding of V_s
FLOAT32 = 1e-5  # of logits
BFLOAT16 = 2e-2


@pytest.fixture(scope="module", params=TARGETS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp("llama"))


def tokens(rows: int = 3) -> Tensor:
    return torch.randint(8, 50, (rows, 12), generator=torch.Generator().manual_seed(1))


def logits(model: torch.nn.Module, ids: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=tokens() if ids is None else ids).logits.float()
    return found


def layers(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def moved(model: PeftModel) -> list[float]:
    """`||V_s^T dW|| / ||dW||` of each layer, from what its forward pass does to all unit inputs."""
    shares = []
    for _, layer in layers(model):
        variant = layer.lora_variant["default"]
        eye = torch.eye(layer.in_features)
        with torch.no_grad():
            update = (layer(eye) - layer.get_base_layer()(eye)).T.double()
        inside = variant.kit.safety.double().T @ update
        whole = torch.linalg.norm(update)
        shares.append(float(torch.linalg.norm(inside) / whole) if whole else 0.0)
    return shares


def steps(model: PeftModel, count: int = 5, lr: float = 0.05) -> Iterator[float]:
    """Real steps of AdamW on random tokens; the loss before each."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    for _ in range(count):
        loss = model(input_ids=tokens(), labels=tokens()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


# ------------------------------------------------------------------------------- what it computes
def test_freshly_attached_the_model_is_the_chat_model(world: SaloraWorld) -> None:
    assert torch.equal(logits(world.attached()), logits(world.model()))


def test_nothing_moves_along_the_safety_directions_before_during_and_after_training(
    world: SaloraWorld,
) -> None:
    model = world.attached()
    assert max(moved(model)) == 0.0  # nothing has moved at all
    losses = []
    for loss in steps(model):
        losses.append(loss)
        assert max(moved(model)) < GUARANTEE
    assert losses[-1] < losses[0]
    assert (logits(model) - logits(world.model())).abs().max() > 0.01  # it did learn


def test_the_forward_pass_is_the_formula(world: SaloraWorld) -> None:
    model = world.attached()
    list(steps(model, 3))
    for name, layer in layers(model):
        fixed, s = Kit.load(world.kit_folder).modules[name], layer.scaling["default"]
        assert fixed.start is not None
        a, b = (m["default"].weight.detach().double() for m in (layer.lora_A, layer.lora_B))
        v = fixed.safety.double()
        c = torch.eye(v.shape[0]).double() - v @ v.T
        wanted = s * c @ (b @ a - fixed.start.b.double() @ fixed.start.a.double())
        assert torch.allclose(
            layer.lora_variant["default"].delta(layer, "default").double(), wanted, atol=1e-6
        )
        x = torch.randn(2, 5, layer.in_features)
        with torch.no_grad():
            update = layer(x) - layer.get_base_layer()(x)
        assert torch.allclose(update.double(), x.double() @ wanted.T, atol=1e-5)


def test_gradients_reach_a_and_b_alone(world: SaloraWorld) -> None:
    model = world.attached()
    next(steps(model, 1))
    with_gradient = {n.split(".")[-3] for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"lora_A", "lora_B"}


def test_merged_the_model_computes_the_same(world: SaloraWorld) -> None:
    model = world.attached()
    list(steps(model, 3))
    before, chat = logits(model), logits(world.model())
    model.merge_adapter()
    assert torch.allclose(logits(model), before, atol=FLOAT32)
    model.unmerge_adapter()
    assert torch.allclose(logits(model), before, atol=FLOAT32)
    with model.disable_adapter():
        assert torch.allclose(logits(model), chat, atol=FLOAT32)
    model.merge_adapter(safe_merge=True)
    assert torch.allclose(logits(model), before, atol=FLOAT32)


def test_rows_of_one_batch_may_be_with_and_without_the_adapter(llama: SaloraWorld) -> None:
    model = llama.attached()
    list(steps(model, 3))
    with torch.no_grad():
        both = model(input_ids=tokens(2), adapter_names=["default", "__base__"]).logits
    assert torch.allclose(both[0], logits(model, tokens(2))[0], atol=FLOAT32)
    assert torch.allclose(both[1], logits(llama.model(), tokens(2))[1], atol=FLOAT32)


def test_with_dropout_the_start_still_cancels_where_nothing_is_dropped(llama: SaloraWorld) -> None:
    model = llama.attached()
    for _, layer in layers(model):
        layer.lora_dropout["default"] = torch.nn.Dropout(0.5)
    assert torch.equal(logits(model.eval()), logits(llama.model()))
    model.train()
    list(steps(model, 3))
    model.eval()
    assert max(moved(model)) < GUARANTEE


def test_detached_it_is_what_peft_alone_computes(llama: SaloraWorld, tmp_path: Path) -> None:
    model = llama.attached()
    plain = PeftModel.from_pretrained(llama.model(), llama.kit_folder).eval()
    detach(model)
    assert not any(layer.lora_variant for _, layer in layers(model))
    assert torch.allclose(logits(model), logits(plain), atol=FLOAT32)
    offline(model, llama).save_pretrained(str(tmp_path))
    assert not (tmp_path / "salora_config.json").exists()
    attach(model, llama.kit_folder)
    assert torch.equal(logits(model), logits(llama.model()))


# --------------------------------------------------------------------------------- what is refused
def changed(kit: Kit, **changes: Any) -> Kit:
    return Kit({**kit.config, **changes}, kit.modules)


def test_a_kit_of_another_model_is_refused_and_nothing_is_changed(
    llama: SaloraWorld, tmp_path: Path
) -> None:
    other = llama.model()
    with torch.no_grad():
        other.get_submodule("model.layers.1.self_attn.v_proj").weight.mul_(1.001)
    model = PeftModel.from_pretrained(other, llama.kit_folder)
    with pytest.raises(KitDoesNotFit, match=r"1\.self_attn\.v_proj: the model's weight is not"):
        attach(model, llama.kit_folder)
    assert not any(layer.lora_variant for _, layer in layers(model))


def test_another_rank_scaling_or_choice_of_modules_is_refused(llama: SaloraWorld) -> None:
    kit = Kit.load(llama.kit_folder)
    names = list(kit.modules)
    model = PeftModel.from_pretrained(llama.model(), llama.kit_folder)
    with pytest.raises(KitDoesNotFit, match="has rank 4 and scaling 1, the kit 8 and 1"):
        attach(model, changed(kit, ranks=dict.fromkeys(names, 8)))
    with pytest.raises(KitDoesNotFit, match=r"the kit 4 and 0\.5"):
        attach(model, changed(kit, scaling=0.5))
    less = Kit(kit.config, {name: kit.modules[name] for name in names[1:]})
    with pytest.raises(KitDoesNotFit, match=names[0].replace(".", r"\.")):
        attach(model, less)
    fewer = get_peft_model(llama.model(), LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj"]))
    with pytest.raises(KitDoesNotFit, match="lacks"):
        attach(fewer, kit)


def test_a_dora_adapter_is_refused(llama: SaloraWorld) -> None:
    kit = Kit.load(llama.kit_folder)
    config = LoraConfig(r=4, lora_alpha=4, target_modules=sorted(kit.modules), use_dora=True)
    with pytest.raises(KitDoesNotFit, match="another LoRA variant"):
        attach(get_peft_model(llama.model(), config), kit)


def test_a_folder_that_is_no_kit_is_refused(llama: SaloraWorld, tmp_path: Path) -> None:
    model = PeftModel.from_pretrained(llama.model(), llama.kit_folder)
    with pytest.raises(FileNotFoundError):
        attach(model, tmp_path)
    (tmp_path / "salora_config.json").write_text('{"version": "99"}')
    with pytest.raises(ValueError, match="not a kit of version"):
        attach(model, tmp_path)


# ------------------------------------------------------------------------------ how it is trained
def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings = {
        "output_dir": str(folder), "max_steps": 6, "per_device_train_batch_size": 2,
        "learning_rate": 1e-2, "save_steps": 3, "report_to": [], "use_cpu": True, "seed": 3,
        "disable_tqdm": True, "logging_steps": 1,
    }  # fmt: skip
    return TrainingArguments(**{**settings, **changes})


def examples() -> list[dict[str, Tensor]]:
    return [{"input_ids": row, "labels": row} for row in tokens(8)]


def offline(model: PeftModel, world: SaloraWorld) -> PeftModel:
    """PEFT asks for the base model's configuration by this name when it saves."""
    model.peft_config["default"].base_model_name_or_path = str(world.chat.checkpoint.folder)
    return model


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
