"""What is done to a tiny world's files before it is used."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from app.domain.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
)
from tests.factory import MAKERS, World, save_adapter

Change = Callable[[World], None]
"""Alters the files of a world before it is used."""


def load(world: World, folder: Path) -> PreTrainedModel:
    model = type(MAKERS[world.architecture]()).from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def rename(path: Path, to: Callable[[str], str]) -> None:
    tensors = {to(name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def keys(to: Callable[[str], str]) -> Change:
    return lambda world: rename(world.adapter / WEIGHTS_FILE, to)


def named(adapter: str) -> Callable[[str], str]:
    return lambda key: key.replace(".weight", f".{adapter}.weight")


def only_a_named(key: str) -> str:
    return key.replace("lora_A.weight", "lora_A.default.weight")


def without_prefix(key: str) -> str:
    return key.removeprefix("base_model.model.")


def as_llava_was_before_4_52(key: str) -> str:
    return key.replace("model.model.language_model.", "model.language_model.model.")


def with_the_towers_of_transformers_4(world: World) -> None:
    for folder in (world.base, world.chat):
        rename(
            folder / "model.safetensors",
            lambda name: name.replace("vision_tower.", "vision_tower.vision_model."),
        )


def without_a_word_on_tying(world: World) -> None:
    """As config.json of GPT-2 on the Hub: the model type's default holds."""
    for folder in (world.base, world.chat):
        said = json.loads((folder / "config.json").read_text())
        del said["tie_word_embeddings"]
        (folder / "config.json").write_text(json.dumps(said))


def said(**changes: object) -> Change:
    """The configuration says otherwise than the tensors."""

    def write(world: World) -> None:
        path = world.adapter / CONFIG_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return write


def one_of(name: str) -> Callable[[str], str]:
    """The first module's `lora_A` gets another tool's name."""
    return lambda key: name if key.endswith("layers.0.self_attn.q_proj.lora_A.weight") else key


def changed_config(folder: Path, **changes: object) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, **changes}))


def in_float8(world: World) -> None:
    path = world.chat / "model.safetensors"
    tensors = {
        name: tensor.to(torch.float8_e4m3fn) if "proj" in name else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, {"format": "pt"})
    changed_config(world.chat, quantization_config={"quant_method": "fp8"})


def of_another_family(world: World) -> None:
    changed_config(world.chat, model_type="mistral")


def in_shards(world: World) -> Path:
    """The second shard of the chat model."""
    load(world, world.chat).save_pretrained(world.chat, max_shard_size="20KB")
    (world.chat / "model.safetensors").unlink(missing_ok=True)
    return next(world.chat.glob("model-00002-of-*.safetensors"))


def without_a_shard(world: World) -> None:
    in_shards(world).unlink()


def with_a_shard_cut_short(world: World) -> None:
    shard = in_shards(world)
    shard.write_bytes(shard.read_bytes()[:-8])


def with_a_smaller_base(world: World) -> None:
    """As where the chat model was given new tokens."""
    model = load(world, world.base)
    model.resize_token_embeddings(56, mean_resizing=False)
    model.save_pretrained(world.base)


def linear_experts(*targets: str) -> Change:
    """An adapter as transformers 4 had it: each expert's projections and the router are linear
    modules, by the names that the checkpoint still has."""

    def write(world: World) -> None:
        lora = {}
        for name, weight in load_file(world.chat / "model.safetensors").items():
            if weight.ndim == 2 and name.split(".")[-2] in targets:
                key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
                lora[f"{key}A.weight"] = torch.randn(4, weight.shape[1]) * 0.1
                lora[f"{key}B.weight"] = torch.randn(weight.shape[0], 4) * 0.1
        save_file(lora, world.adapter / WEIGHTS_FILE, {"format": "pt"})
        said = json.loads((world.adapter / CONFIG_FILE).read_text())
        said["target_modules"] = list(targets)
        (world.adapter / CONFIG_FILE).write_text(json.dumps(said))

    return write


def with_stacked_experts(world: World) -> None:
    """As the loaded model has them, by transformers 5's own names."""
    for folder in (world.base, world.chat):
        model = load(world, folder)
        tensors = {name: value.detach().clone() for name, value in model.state_dict().items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def of_a_model_with_more_experts(world: World) -> None:
    for folder in (world.base, world.chat):
        tensors = load_file(folder / "model.safetensors")
        more = {
            name.replace("experts.1.", "experts.2."): tensor.clone()
            for name, tensor in tensors.items()
            if "experts.1." in name
        }
        save_file({**tensors, **more}, folder / "model.safetensors", {"format": "pt"})


def with_a_larger_vocabulary(world: World) -> None:
    model = world.chat_model()
    model.resize_token_embeddings(72, mean_resizing=False)
    model.save_pretrained(world.chat)


def of_the_language_model_alone(world: World) -> None:
    model = MAKERS["llama"]()
    save_adapter(model, world.adapter, "llama")
