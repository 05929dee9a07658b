"""Modules without an adapter, against what transformers says of real models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from app.domain.adapter import TensorEntry
from app.domain.alignment import AlignedModule
from app.domain.architecture import is_embedding, is_output_head
from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.errors import (
    CheckpointRefused,
    InvalidField,
    ModelShapesDiffer,
    ModulesNotInModel,
)
from app.domain.salora_errors import TargetsRefused
from app.intake.checkpoint import read_checkpoint
from app.intake.model_modules import named_modules, shared_modules, targeted_modules
from tests.factory import MAKERS, World, make_world, perturb


def read(folder: Path) -> Checkpoint:
    return read_checkpoint(folder, field="chat_model", model=folder.name)


def named(world: World, *names: str) -> list[AlignedModule]:
    return named_modules(names, read(world.base), read(world.chat), "base", "chat")


def shared(base: Path, chat: Path) -> list[AlignedModule]:
    return shared_modules(read(base), read(chat), "base", "chat")


@pytest.fixture(scope="module")
def gpt2_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("gpt2"), "gpt2")


@pytest.mark.parametrize("architecture", MAKERS)
def test_embeddings_are_told_from_linear_modules_by_their_names(architecture: str) -> None:
    for name, module in MAKERS[architecture]().named_modules():
        if isinstance(module, nn.Embedding):
            assert is_embedding(name), name
        if isinstance(module, nn.Linear | Conv1D):
            assert not is_embedding(name), name


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gpt_neox", "tied qwen2"])
def test_without_names_every_linear_module_but_the_head_is_meant(
    tmp_path: Path, architecture: str
) -> None:
    model = MAKERS[architecture]()
    model.save_pretrained(tmp_path / "base")
    perturb(model, 0.1)
    model.save_pretrained(tmp_path / "chat")
    expected = {
        name: tuple(
            module.weight.shape[::-1] if isinstance(module, Conv1D) else module.weight.shape
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not is_output_head(name)
    }
    found = shared(tmp_path / "base", tmp_path / "chat")
    assert {module.name: (module.d_out, module.d_in) for module in found} == expected


def test_modules_come_in_their_own_order(llama_world: World) -> None:
    found = [module.name for module in named(llama_world, "v_proj", "q_proj")]
    assert found == [f"model.layers.{i}.self_attn.{kind}_proj" for i in (0, 1) for kind in "qv"]


def test_a_name_may_be_whole_or_the_end_of_one_but_no_part_of_a_word(llama_world: World) -> None:
    whole = "model.layers.1.mlp.down_proj"
    assert [module.name for module in named(llama_world, whole)] == [whole]
    assert [module.name for module in named(llama_world, "1.mlp.down_proj")] == [whole]
    with pytest.raises(ModulesNotInModel, match="own_proj"):
        named(llama_world, "own_proj")


def test_a_module_named_twice_is_meant_once(llama_world: World) -> None:
    assert named(llama_world, "q_proj", "self_attn.q_proj") == named(llama_world, "q_proj")


def test_conv1d_is_the_other_way_round(gpt2_world: World) -> None:
    (module, _) = named(gpt2_world, "c_attn")
    assert (module.d_out, module.d_in) == (96, 32)


def test_an_embedding_is_meant_where_it_is_named(llama_world: World) -> None:
    (module,) = named(llama_world, "embed_tokens")
    assert (module.layer_type, module.d_out, module.d_in) == ("embedding", 32, 64)


def test_a_module_that_only_one_model_has_is_told(tmp_path: Path, llama_world: World) -> None:
    chat = copied(llama_world.chat, tmp_path / "chat")
    change(chat, {"model.layers.7.extra.weight": torch.ones(4, 4)})
    with pytest.raises(ModulesNotInModel, match=r"base_model base .* model\.layers\.7\.extra"):
        named_modules(["extra"], read(llama_world.base), read(chat), "base", "chat")
    assert shared(llama_world.base, chat) == shared(llama_world.base, llama_world.chat)


def test_a_module_of_another_shape_is_told_or_left_out(tmp_path: Path, llama_world: World) -> None:
    chat, name = copied(llama_world.chat, tmp_path / "chat"), "model.layers.0.self_attn.q_proj"
    change(chat, {f"{name}.weight": torch.ones(4, 4)})
    with pytest.raises(ModelShapesDiffer, match="q_proj"):
        named_modules([name], read(llama_world.base), read(chat), "base", "chat")
    assert name not in [module.name for module in shared(llama_world.base, chat)]


def test_models_that_share_nothing_are_told(tmp_path: Path, llama_world: World) -> None:
    chat = copied(llama_world.chat, tmp_path / "chat")
    save_file({"other.weight": torch.ones(3, 3)}, chat / "model.safetensors")
    with pytest.raises(InvalidField, match="chat_model: has no module in common"):
        shared(llama_world.base, chat)


def test_models_of_two_types_are_told(llama_world: World, gpt2_world: World) -> None:
    with pytest.raises((CheckpointRefused, InvalidField)):
        shared(llama_world.base, gpt2_world.chat)


def copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    return target


def test_target_modules_are_full_names_or_ends_of_names(llama_world: World) -> None:
    chat = read(llama_world.chat)
    found = targeted_modules(["q_proj", "model.layers.1.mlp.up_proj", "0.mlp.up_proj"], chat)
    assert [module.name for module in found] == [
        "model.layers.0.mlp.up_proj",
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
    ]
    assert {(module.d_out, module.d_in) for module in found} == {(32, 32), (48, 32)}


@pytest.mark.parametrize("target", ["proj", "_proj", "norm", "w_q", "embed_tokens", "lm_head"])
def test_a_target_that_means_no_linear_module_is_refused(llama_world: World, target: str) -> None:
    with pytest.raises(TargetsRefused, match=target):
        targeted_modules(["q_proj", target], read(llama_world.chat))


def change(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path)


class Counting(dict[str, ShardTensor]):
    """Counts how often somebody goes through all of it."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()


def test_many_names_are_found_in_as_many_passes_as_one() -> None:
    """A request may name 1,000 modules of a model with tens of thousands of experts' weights."""
    entry = TensorEntry("w", "BF16", (4, 4), 0, 32)
    names = [
        f"model.layers.{layer}.mlp.experts.{i}.up_proj" for layer in range(5) for i in range(100)
    ]

    def passes(wanted: list[str]) -> int:
        tensors = Counting({f"{name}.weight": ShardTensor(Path("f"), entry) for name in names})
        base, chat = (Checkpoint(Path(n), "mixtral", tensors, n) for n in ("base", "chat"))
        assert len(named_modules(wanted, base, chat, "base", "chat")) == len(names)
        return tensors.passes

    assert 0 < passes([f"{i}.up_proj" for i in range(100)]) <= passes(["up_proj"])
