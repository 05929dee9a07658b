"""SaLoRA attached to stock PEFT: what it computes, what it saves, and what it refuses."""

import copy
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from app.alignment.kit import Kit
from app.alignment.salora import KitDoesNotFit, attach, detach
from app.domain.salora import InitRecipe
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
from tests.workers.salora_world import SHORT, TARGETS, TASK_SET, SaloraWorld, make_salora_world


@pytest.fixture(scope="module", params=TARGETS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp("llama"))


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


# ---------------------------------------------------------------------------------- what is saved
def kit_of(folder: Path) -> str | None:
    """The kit that a saved configuration names."""
    named: str | None = json.loads((folder / "adapter_config.json").read_bytes()).get("salora_kit")
    if named:
        assert Kit.load(folder).config["id"] == named
    return named


def another_kit(folder: Path) -> SaloraWorld:
    """Of the same chat model."""
    init = InitRecipe("8" * 64, TASK_SET, rank=2, task_rank=8, encoding=SHORT)
    return make_salora_world(folder, init=init)


def pickled(model: PeftModel) -> PeftModel:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    found: PeftModel = torch.load(file, weights_only=False)
    return found


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_of_an_attached_model_saves_its_own_weights(
    llama: SaloraWorld, tmp_path: Path, copied: Callable[[PeftModel], PeftModel]
) -> None:
    model = copied(offline(llama.attached(), llama))
    list(steps(model, 3))
    model.save_pretrained(str(tmp_path))
    with pytest.warns(UserWarning, match="Unexpected keyword arguments"):  # our mark
        again = PeftModel.from_pretrained(llama.model(), str(tmp_path))
    attach(again, tmp_path)
    assert torch.allclose(logits(again.eval()), logits(model), atol=1e-7)


def test_what_was_attached_is_saved_even_where_the_kits_folder_is_gone(
    llama: SaloraWorld, tmp_path: Path
) -> None:
    shutil.copytree(llama.kit_folder, tmp_path / "kit")
    model = PeftModel.from_pretrained(llama.model(), str(tmp_path / "kit"), is_trainable=True)
    attach(model, tmp_path / "kit")
    shutil.rmtree(tmp_path / "kit")
    offline(model, llama).save_pretrained(str(tmp_path / "out"))
    assert kit_of(tmp_path / "out") == llama.kit.id


def test_each_adapter_is_saved_with_its_own_kit_and_others_with_none(
    llama: SaloraWorld, tmp_path: Path
) -> None:
    other, model, out = another_kit(tmp_path), offline(llama.attached(), llama), tmp_path / "out"
    model.load_adapter(str(other.kit_folder), "other", is_trainable=True)
    attach(model, other.kit_folder, "other")
    model.add_adapter("plain", LoraConfig(r=2, target_modules=["q_proj"]))
    (out / "checkpoint-1").mkdir(parents=True)
    (out / "checkpoint-1" / "adapter_config.json").write_text("{}")
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(llama.chat.checkpoint.folder)
    model.save_pretrained(str(out))
    found = [kit_of(out / name) for name in ("", "other", "plain", "checkpoint-1")]
    assert found == [llama.kit.id, other.kit.id, None, None]
    detach(model)
    model.save_pretrained(str(tmp_path / "later"), selected_adapters=["other"])
    assert kit_of(tmp_path / "later" / "other") == other.kit.id
    model.save_pretrained(str(tmp_path / "plain"), selected_adapters=["default"])
    assert kit_of(tmp_path / "plain") is None


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


@pytest.mark.parametrize(("made_in", "off"), [("bfloat16", 0.003), ("float32", 0.006)])
def test_a_model_that_was_trained_a_little_further_is_refused_in_16_bits_too(
    tmp_path: Path, made_in: str, off: float
) -> None:
    world = make_salora_world(tmp_path, dtype=getattr(torch, made_in))
    attach(PeftModel.from_pretrained(world.model("bfloat16"), world.kit_folder), world.kit_folder)
    other = world.model("bfloat16").float()
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight) * weight.std() * off)
    model = PeftModel.from_pretrained(other.bfloat16(), world.kit_folder)
    with pytest.raises(KitDoesNotFit, match="the model's weight is not"):
        attach(model, world.kit_folder)


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


def test_an_adapter_that_does_not_start_where_the_kit_does_is_refused(llama: SaloraWorld) -> None:
    kit = Kit.load(llama.kit_folder)
    config = LoraConfig(r=4, lora_alpha=4, target_modules=sorted(kit.modules))
    with pytest.raises(KitDoesNotFit, match="its B is zero everywhere"):
        attach(get_peft_model(llama.model(), config), kit)


def test_an_adapter_with_a_bias_is_refused(tmp_path: Path) -> None:
    world = make_salora_world(tmp_path, "gpt2")
    kit = Kit.load(world.kit_folder)
    settings = {"r": 4, "lora_alpha": 4, "fan_in_fan_out": True, "init_lora_weights": False}
    config = LoraConfig(target_modules=sorted(kit.modules), lora_bias=True, **settings)
    with pytest.raises(KitDoesNotFit, match="lora_bias, which nothing would hold"):
        attach(get_peft_model(world.model(), config), kit)


def test_a_folder_that_is_no_kit_is_refused(llama: SaloraWorld, tmp_path: Path) -> None:
    model = PeftModel.from_pretrained(llama.model(), llama.kit_folder)
    with pytest.raises(FileNotFoundError):
        attach(model, tmp_path)
    (tmp_path / "salora_config.json").write_text('{"version": "99"}')
    with pytest.raises(ValueError, match="not a kit of version"):
        attach(model, tmp_path)
