import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from app.domain.checkpoint import Checkpoint
from app.domain.errors import CheckpointRefused
from app.intake import checkpoint as module
from app.intake.checkpoint import read_checkpoint
from tests.intake.files import checkpoint, weights

SHAPES = [("model.a.weight", [4, 6]), ("model.b.weight", [2, 2])]


def read(folder: Path) -> Checkpoint:
    return read_checkpoint(folder, field="base_model", model="org/m")


def sharded(folder: Path) -> Path:
    """Two shards with one tensor each."""
    checkpoint(folder, [])
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name, tensor in zip(names, SHAPES, strict=True):
        (folder / name).write_bytes(weights([tensor]))
    index = {"weight_map": {tensor: name for (tensor, _), name in zip(SHAPES, names, strict=True)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_what_transformers_saves_is_read_in_one_file_and_in_shards(tmp_path: Path) -> None:
    tiny = LlamaConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=32,
    )  # fmt: skip
    model = LlamaForCausalLM(tiny).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="2KB")
    one, many = read(tmp_path / "one"), read(tmp_path / "many")
    assert one.model_type == many.model_type == "llama"
    assert one.tensors.keys() == many.tensors.keys()
    assert one.digest != many.digest
    assert len({tensor.file for tensor in many.tensors.values()}) > 1
    for name, tensor in many.tensors.items():
        truth = load_file(tensor.file)[name]
        assert tensor.entry.shape == tuple(truth.shape)
        raw = tensor.file.read_bytes()[tensor.entry.begin : tensor.entry.end]
        assert raw == truth.view(torch.uint8).numpy().tobytes()


def test_links_into_a_hub_cache_are_followed(tmp_path: Path) -> None:
    real = sharded(tmp_path / "real")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in real.iterdir():
        (linked / path.name).symlink_to(path)
    assert read(linked).tensors.keys() == read(real).tensors.keys()


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    first, second = sharded(tmp_path / "a"), sharded(tmp_path / "b")
    assert read(first).digest == read(second).digest
    (second / "config.json").write_text('{"model_type": "gpt2"}')
    assert read(first).digest != read(second).digest
    assert read(second).model_type == "gpt2"


def test_a_checkpoint_is_parsed_once_until_a_file_changes(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", SHAPES)
    before = module._read.cache_info().misses
    assert read(folder) is read(folder)
    assert module._read.cache_info().misses == before + 1
    os.utime(folder / "model.safetensors", ns=(1, 1))
    read(folder)
    assert module._read.cache_info().misses == before + 2


def refused(folder: Path, file: str, reason: str) -> None:
    with pytest.raises(CheckpointRefused, match=reason) as caught:
        read(folder)
    facts = caught.value.facts
    assert (facts["field"], facts["model"], facts["file"]) == ("base_model", "org/m", file)
    assert str(folder.parent) not in str(caught.value)


@pytest.mark.parametrize("text", [None, "[]", "{", "\0"])
def test_a_missing_or_broken_config_is_named(text: str | None, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", SHAPES) / "config.json"
    path.unlink() if text is None else path.write_text(text)
    refused(tmp_path / "m", "config.json", "missing" if text is None else "JSON")


def test_a_config_without_a_model_type_gives_none(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", SHAPES)
    (folder / "config.json").write_text('{"limit": Infinity}')
    assert read(folder).model_type is None


def found(folder: Path, config: dict[str, object], names: list[str], module: str) -> str | None:
    """The tensor of a checkpoint with these tensors that is the module's weight."""
    checkpoint(folder, [(name, [4, 6]) for name in names])
    (folder / "config.json").write_text(json.dumps(config))
    weight = read(folder).weight(module)
    return weight.entry.name if weight else None


EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("config", "names", "tensor"),
    [
        ({"model_type": "llama", "tie_word_embeddings": True}, [EMBEDDING], EMBEDDING),
        ({"model_type": "llama", "tie_word_embeddings": False}, [EMBEDDING], None),
        ({"model_type": "llama"}, [EMBEDDING], None),
        ({"model_type": "gemma2"}, [EMBEDDING], EMBEDDING),
        ({"model_type": "gemma2", "tie_word_embeddings": False}, [EMBEDDING], None),
        ({"model_type": "gemma2", "tie_word_embeddings": None}, [EMBEDDING], None),
        ({"model_type": "unheard-of", "tie_word_embeddings": True}, [EMBEDDING], None),
        (
            {"model_type": "llama", "tie_word_embeddings": True},
            [EMBEDDING, "lm_head.weight"],
            "lm_head.weight",
        ),
        ({"model_type": "gemma2"}, ["embed_tokens.weight"], "embed_tokens.weight"),
        ({"model_type": "gpt2"}, ["wte.weight"], "wte.weight"),
        (
            {"model_type": "qwen2_vl", "text_config": {"tie_word_embeddings": True}},
            [EMBEDDING],
            EMBEDDING,
        ),
        ({"model_type": "qwen2_vl", "text_config": "x"}, [EMBEDDING], None),
    ],
)
def test_a_tied_head_is_the_embedding_where_the_config_or_the_type_says_so(
    config: dict[str, object], names: list[str], tensor: str | None, tmp_path: Path
) -> None:
    assert found(tmp_path, config, names, "lm_head") == tensor


LAYER, SAVED = "model.vision_tower.q", "vision_tower.q.weight"


@pytest.mark.parametrize(
    ("model_type", "names", "tensor"),
    [
        ("llava", [SAVED], SAVED),
        ("llava", ["vision_tower.vision_model.q.weight"], "vision_tower.vision_model.q.weight"),
        ("llava", [SAVED, "vision_tower.vision_model.q.weight"], None),  # which one is meant?
        ("llava", [SAVED, f"{LAYER}.weight"], f"{LAYER}.weight"),
        ("gpt_neox", [SAVED], None),
    ],
)
def test_a_renamed_part_is_found_only_where_one_tensor_can_be_meant(
    model_type: str, names: list[str], tensor: str | None, tmp_path: Path
) -> None:
    assert found(tmp_path, {"model_type": model_type}, names, LAYER) == tensor


def test_a_pickled_checkpoint_is_told_to_be_converted(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", SHAPES)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "convert")


def test_a_folder_without_weights_and_no_folder_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", SHAPES)
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "missing")
    shutil.rmtree(folder)
    refused(folder, "m", "cannot be read")


def test_a_shard_that_the_index_names_and_is_not_there_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "model-00002-of-00002.safetensors", "missing")


def test_a_dead_link_is_a_missing_shard(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    shard = folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to(tmp_path / "gone")
    refused(folder, shard.name, "missing")


def test_a_tensor_that_its_shard_does_not_have_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").write_bytes(weights([("x", [1])]))
    refused(folder, "model-00002-of-00002.safetensors", r"model\.b\.weight")


def test_a_shard_cut_short_is_named(tmp_path: Path) -> None:
    shard = sharded(tmp_path / "m") / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    refused(tmp_path / "m", shard.name, "cut short")


@pytest.mark.parametrize(
    "where", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 3]
)
def test_an_index_that_points_elsewhere_is_refused(where: object, tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    index = {"weight_map": {"model.a.weight": where}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointRefused):
        read(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', "{"])
def test_a_broken_index_is_named(text: str, tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, "model.safetensors.index.json", "JSON|weight_map")
