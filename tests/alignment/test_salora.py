"""SaLoRA attached to stock PEFT: what it computes, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from app.alignment.kit import Kit
from app.alignment.salora import KitDoesNotFit, attach, detach
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
from tests.workers.salora_world import TARGETS, SaloraWorld, make_salora_world


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
