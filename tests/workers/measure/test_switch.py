"""One model that wears adapters of every kind in turn, and is itself again afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.errors import UnsupportedAdapter
from app.domain.method import Method, Selection
from app.intake.manifest import read_manifest
from tests.factory import World, make_world, save_adapter
from tests.workers.breadth import ALL, EXPERTS, PEFTS_WARNINGS, Q_V, SUPPORTED, Row
from tests.workers.breadth_changes import keys, load, named, said
from tests.workers.breadth_models import TOKENS, patched
from workers.measure.switch import LoadedAdapter, Switch, tensors_of

pytestmark = list(PEFTS_WARNINGS)

SAME = 1e-5  # of the largest logit, because PEFT's own folder gives another order of modules


def with_another_embedding(world: World) -> None:
    """The full weight that PEFT saves beside a LoRA is not the chat model's own any more."""
    path = world.adapter / WEIGHTS_FILE
    tensors = load_file(path)
    (key,) = (key for key in tensors if key.endswith("base_layer.weight"))
    save_file({**tensors, key: tensors[key] * 1.2}, path, {"format": "pt"})


FULL = {"save_embedding_layers": "auto"}
MORE = (
    Row("llama", "embedding, saved with another full weight", "",
        {"target_modules": ["embed_tokens"], **FULL}, with_another_embedding),
    Row("tied qwen2", "lm_head, saved with another full weight", "",
        {"target_modules": ["lm_head"], **FULL}, with_another_embedding),
    Row("llama", "DoRA, adapter name in the keys", "", {**Q_V, "use_dora": True},
        keys(lambda key: f"{key}.default.weight" if key.endswith("vector")
             else named("default")(key))),
    Row("llama", "embedding, adapter name in the keys", "",
        {"target_modules": ["embed_tokens", "q_proj"]},
        keys(lambda key: f"{key}.default" if "embedding" in key else named("default")(key))),
)  # fmt: skip
WORN = [row for row in (*SUPPORTED, *MORE) if "bias" not in row.lora]
REFUSED = [row for row in SUPPORTED if "bias" in row.lora]


def read(world: World) -> LoadedAdapter:
    return LoadedAdapter.read(world.adapter, read_manifest(world.adapter))


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(input_ids=TOKENS).logits.double()
    return found


@dataclass
class Bare:
    """A model as it was before anything was put on it."""

    model: PreTrainedModel

    def __post_init__(self) -> None:
        self.model.requires_grad_(False)
        self.logits, self.tree = logits(self.model), self.modules()
        self.parameters = dict(self.model.named_parameters(remove_duplicate=False))
        self.state = {name: value.clone() for name, value in self.model.state_dict().items()}

    def modules(self) -> list[tuple[str, nn.Module]]:
        return list(self.model.named_modules(remove_duplicate=False))

    def assert_untouched(self) -> None:
        """The same modules and parameters at the same places (so that tied ones are still tied),
        with the same values, and nothing of PEFT's."""
        assert torch.equal(logits(self.model), self.logits)
        assert self.modules() == self.tree
        after = dict(self.model.named_parameters(remove_duplicate=False))
        assert after.keys() == self.parameters.keys()
        assert all(after[name] is parameter for name, parameter in self.parameters.items())
        values = self.model.state_dict()
        assert values.keys() == self.state.keys()
        assert all(torch.equal(values[name], value) for name, value in self.state.items())
        assert not hasattr(self.model, "peft_config")
        assert not any(parameter.requires_grad for parameter in after.values())


@pytest.mark.parametrize("row", WORN, ids=str)
def test_worn_it_is_what_peft_makes_of_the_folder_and_taken_off_it_was_never_there(
    row: Row, tmp_path: Path
) -> None:
    world = row.world(tmp_path)
    model = load(world, world.chat)
    bare, switch = Bare(model), Switch(model)
    wanted = logits(PeftModel.from_pretrained(load(world, world.chat), str(world.adapter)))
    switch.wear(read(world))
    assert (logits(model) - wanted).abs().max() <= SAME * wanted.abs().max()
    assert not torch.allclose(bare.logits, wanted, atol=1e-3)
    with switch.bare():
        assert torch.equal(logits(model), bare.logits)
    assert (logits(model) - wanted).abs().max() <= SAME * wanted.abs().max()
    switch.wear(None)
    bare.assert_untouched()


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_biases_of_the_models_own_layers_are_refused_by_name(row: Row, tmp_path: Path) -> None:
    world = row.world(tmp_path)
    bare = Bare(load(world, world.chat))
    switch = Switch(bare.model)
    with pytest.raises(UnsupportedAdapter, match=r"\(bias\).*adapter_config\.json"):
        switch.wear(read(world))
    bare.assert_untouched()


KINDS: Mapping[str, Mapping[str, object]] = {
    "LoRA": Q_V,
    "DoRA": {**ALL, "use_dora": True},
    "embedding": {"target_modules": ["embed_tokens", "lm_head"]},
    "full embedding": {"target_modules": ["embed_tokens"], **FULL},
    "modules_to_save": {**Q_V, "modules_to_save": ["norm", "lm_head"]},
    "tokens": {**Q_V, "trainable_token_indices": [1, 5, 60]},
}


def worlds_of_one_chat(folder: Path) -> dict[str, World]:
    chat = make_world(folder)
    made = {}
    for name, lora in KINDS.items():
        world = World(chat.base, chat.chat, folder / name, "llama")
        save_adapter(load(world, chat.chat), world.adapter, "llama", **lora)
        for path in world.adapter.iterdir():
            if path.name not in (CONFIG_FILE, WEIGHTS_FILE):
                path.unlink()
        made[name] = world
    return made


def test_many_worn_in_turn_leave_nothing_behind(tmp_path: Path) -> None:
    worlds = worlds_of_one_chat(tmp_path)
    first = next(iter(worlds.values()))
    model = load(first, first.chat)
    bare, switch = Bare(model), Switch(model)
    adapters = {name: read(world) for name, world in worlds.items()}
    alone = {}
    for name, world in worlds.items():
        single = load(world, world.chat).requires_grad_(False)
        Switch(single).wear(adapters[name])
        alone[name] = logits(single)
    for name in [*worlds, *reversed(worlds), "LoRA", "LoRA"]:
        switch.wear(adapters[name])
        assert torch.equal(logits(model), alone[name]), name
        with switch.bare():
            assert torch.equal(logits(model), bare.logits), name
    switch.wear(None)
    bare.assert_untouched()


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_of_one_cut_takes_the_layers_and_leaves_nothing_of_the_one_before(
    kind: str, tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    model, plain = load(world, world.chat), model_without(world)
    bare, switch = Bare(model), Switch(model)
    first, second = (of_one_cut(world, tmp_path / name, KINDS[kind]) for name in ("one", "two"))
    switch.wear(first)
    layers = list(model.named_modules(remove_duplicate=False))
    switch.wear(second)
    assert list(model.named_modules(remove_duplicate=False)) == layers
    Switch(plain).wear(second)
    assert torch.equal(logits(model), logits(plain))
    with switch.bare():
        assert torch.equal(logits(model), bare.logits)
    switch.wear(None)
    bare.assert_untouched()


def model_without(world: World) -> PreTrainedModel:
    return load(world, world.chat).requires_grad_(False)


def of_one_cut(world: World, folder: Path, lora: Mapping[str, object]) -> LoadedAdapter:
    """Each call gives other values."""
    model = load(world, world.chat)
    save_adapter(model, folder, "llama", **lora)
    for path in folder.iterdir():
        if path.name not in (CONFIG_FILE, WEIGHTS_FILE):
            path.unlink()
    whole = LoadedAdapter.read(folder, read_manifest(folder))
    theirs = {name: t * float(1 + torch.rand(())) for name, t in whole.tensors.items()}
    return LoadedAdapter(whole.manifest, theirs)


@pytest.mark.parametrize(
    "other", [{"r": 6}, {"lora_alpha": 64}, {"use_rslora": True}, {"use_dora": True}], ids=str
)
def test_one_that_differs_in_more_than_values_is_put_on_anew(
    other: Mapping[str, object], tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    model, plain = load(world, world.chat), model_without(world)
    first = of_one_cut(world, tmp_path / "one", Q_V)
    second = of_one_cut(world, tmp_path / "two", {**Q_V, **other})
    switch = Switch(model)
    switch.wear(first)
    switch.wear(second)
    Switch(plain).wear(second)
    assert torch.equal(logits(model), logits(plain))


def test_a_refused_one_leaves_the_model_bare(tmp_path: Path) -> None:
    world = make_world(tmp_path, **Q_V)
    adapter, bare = read(world), Bare(load(world, world.chat))
    switch = Switch(bare.model)
    switch.wear(adapter)
    foreign = {name.replace("q_proj", "k_proj"): t for name, t in adapter.tensors.items()}
    with pytest.raises(UnsupportedAdapter):
        switch.wear(LoadedAdapter(adapter.manifest, foreign))
    bare.assert_untouched()


def test_the_worn_adapter_takes_other_values_without_being_put_on_again(tmp_path: Path) -> None:
    world = make_world(tmp_path, **Q_V)
    model, adapter = load(world, world.chat), read(world)
    switch, chat = Switch(model), logits(model)
    switch.wear(adapter)
    whole = logits(model)
    switch.write({name: tensor * 0 for name, tensor in adapter.tensors.items()})
    assert torch.equal(logits(model), chat)
    switch.write(adapter.tensors)
    assert torch.equal(logits(model), whole)


def test_nothing_can_be_written_where_nothing_is_worn(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    with pytest.raises(ValueError, match="no adapter is worn"):
        Switch(load(world, world.chat)).write({})


def test_tensors_without_a_place_in_the_model_are_refused_by_name(tmp_path: Path) -> None:
    world = make_world(tmp_path, **Q_V)
    model, adapter = load(world, world.chat), read(world)
    bare, switch = Bare(model), Switch(model)
    foreign = {name.replace("q_proj", "k_proj"): t for name, t in adapter.tensors.items()}
    with pytest.raises(UnsupportedAdapter, match=r"no place.*layers\.0\.self_attn\.k_proj"):
        switch.wear(LoadedAdapter(adapter.manifest, foreign))
    switch.wear(None)
    bare.assert_untouched()


def test_a_configuration_that_peft_does_not_take_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path, **Q_V)
    said(target_modules=["q_proj", "v_proj", "norm"])(world)  # PEFT puts LoRA on no norm
    bare = Bare(load(world, world.chat))
    switch = Switch(bare.model)
    with pytest.raises(UnsupportedAdapter, match=r"PEFT cannot put on.*adapter_config\.json"):
        switch.wear(read(world))
    switch.wear(None)
    bare.assert_untouched()


def test_a_pattern_that_python_would_take_years_over_is_never_run(tmp_path: Path) -> None:
    world = make_world(tmp_path, **Q_V)
    wanted = logits(PeftModel.from_pretrained(load(world, world.chat), str(world.adapter)))
    evil = r"(.*_?)*(.*_?)*(.*_?)*(q|v)_pro(j|k)"
    said(target_modules=evil, rank_pattern={r"(\w*\.?)*x": 3})(world)
    model = load(world, world.chat)
    Switch(model).wear(read(world))
    assert (logits(model) - wanted).abs().max() <= SAME * wanted.abs().max()


# ------------------------------------------------------------------------------------------- mixed
@pytest.mark.parametrize(
    ("architecture", "lora"),
    [
        ("llama", {**ALL, "use_dora": True}),
        ("qwen2", {**Q_V, "lora_bias": True}),
        ("mixtral", {**EXPERTS, "target_modules": ["q_proj"]}),
        ("qwen3_moe", ALL),
    ],
    ids=["DoRA", "lora_bias", "mixtral's experts", "qwen3_moe's experts"],
)
def test_mixed_is_what_a_patch_of_so_many_modules_writes_byte_for_byte(
    architecture: str, lora: Mapping[str, object], tmp_path: Path
) -> None:
    world = make_world(tmp_path, architecture, **lora)
    adapter = read(world)
    whole = patched(world, tmp_path / "all", Method(select=Selection("all", None)))
    order = sorted(whole.layers, key=lambda layer: layer.cosine or 0)
    modules = {module.name: module for module in adapter.manifest.modules}
    for count in (0, 1, len(order) // 2, len(order)):
        out = tmp_path / str(count)
        patched(world, out, Method(select=Selection("count", float(count))))
        chosen = [modules[layer.module] for layer in order[:count]]
        mixed = adapter.mixed(tensors_of(tmp_path / "all"), chosen)
        wanted = load_file(out / WEIGHTS_FILE)
        assert mixed.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert mixed[name].numpy().tobytes() == tensor.numpy().tobytes(), name
