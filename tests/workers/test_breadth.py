"""Which architectures and configurations work, row by row, and what becomes of the others.

Models are tiny and random, made with transformers; adapters are made with PEFT. Nothing here uses
our own join: weights come from the modules of the loaded model.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)
from transformers.pytorch_utils import Conv1D

from app.domain.adapter import (
    WEIGHTS_FILE,
)
from app.domain.architecture import (
    BASE_MODEL_PREFIX,
    OUTPUT_HEAD,
    STORED_AS,
    TIED_BY_DEFAULT,
    TIED_EMBEDDING,
    is_stored_transposed,
)
from app.domain.errors import (
    AdapterSafetyError,
    NonFiniteTensor,
)
from app.domain.method import Method, Selection
from tests.alignment import reference
from tests.factory import MAKERS, make_world
from tests.workers.breadth import (
    EXPERTS,
    FULL_WEIGHTS,
    HEAD,
    LINEAR_EXPERTS,
    PEFTS_WARNINGS,
    REFUSED,
    SUPPORTED,
    Row,
)
from tests.workers.breadth_changes import (
    Change,
    named,
    rename,
    with_a_larger_vocabulary,
    with_stacked_experts,
    without_prefix,
)
from tests.workers.breadth_models import (
    COSINE_TOLERANCE,
    METHOD,
    WEIGHT_TOLERANCE,
    add_parameters,
    apply_full_weights,
    checkpoint,
    close,
    dense,
    expected,
    load,
    logits,
    patched,
    set_by_hand,
    untie,
)

pytestmark = list(PEFTS_WARNINGS)


@pytest.mark.parametrize("row", SUPPORTED, ids=str)
def test_a_supported_row_agrees_with_the_formulas_and_with_peft(row: Row, tmp_path: Path) -> None:
    world = row.world(tmp_path)
    out = tmp_path / "out"
    report = patched(world, out)
    assert report.verdict == ("review" if row in FULL_WEIGHTS else "patched")
    wanted = expected(world, report, out)
    merged = PeftModel.from_pretrained(untie(load(world, world.chat)), str(out)).merge_and_unload()
    for name, weight in wanted.weights.items():
        assert torch.allclose(dense(merged, name), weight, atol=WEIGHT_TOLERANCE), name
    chat = untie(load(world, world.chat))
    plain = logits(chat)
    by_hand = set_by_hand(apply_full_weights(chat, out), wanted.weights)
    by_hand = logits(add_parameters(by_hand, wanted.added))
    assert close(logits(merged), by_hand)
    assert not close(plain, by_hand)
    if row not in FULL_WEIGHTS:  # which would replace a tied embedding as well
        loaded = PeftModel.from_pretrained(load(world, world.chat), str(out))  # tied, not merged
        assert close(logits(loaded), by_hand)


@pytest.mark.parametrize(
    "method",
    [Method(name="prune", select=Selection("all", None)), Method("complement", energy=1.0,
     select=Selection("all", None))],
    ids=["prune", "complement of everything"],
)  # fmt: skip
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_dora_with_everything_removed_is_the_chat_model(
    architecture: str, method: Method, tmp_path: Path
) -> None:
    """The subspace that is left is zero: the direction's update goes, the magnitude returns."""
    targets = {"llama": ["q_proj", "o_proj", "embed_tokens"], "gpt2": ["c_proj", "wte"]}
    world = make_world(tmp_path, architecture, target_modules=targets[architecture], use_dora=True)
    report = patched(world, tmp_path / "out", method)
    assert {layer.decision for layer in report.layers} == {"projected"}
    loaded = PeftModel.from_pretrained(load(world, world.chat), str(tmp_path / "out"))
    original = PeftModel.from_pretrained(load(world, world.chat), str(world.adapter))
    assert close(logits(loaded), logits(load(world, world.chat)))
    assert not close(logits(original), logits(load(world, world.chat)))


def test_dora_whose_direction_is_untrained_is_not_called_screened(tmp_path: Path) -> None:
    world = make_world(tmp_path, use_dora=True)
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    key = next(key for key in tensors if "lora_B" in key)
    tensors[key].zero_()
    save_file(tensors, world.adapter / WEIGHTS_FILE)
    report = patched(world, tmp_path / "out")
    (part,) = report.unscreened
    assert part.name.endswith("lora_magnitude_vector")
    assert (part.decision, report.verdict) == ("kept", "review")


def test_a_tied_head_is_warned_about(tmp_path: Path) -> None:
    tied = patched(make_world(tmp_path / "tied", "gemma2", **HEAD), tmp_path / "out")
    assert any("lm_head" in w and "changes the embedding" in w for w in tied.warnings)
    embedding = {"target_modules": ["embed_tokens"]}
    tied = patched(make_world(tmp_path / "embedding", "gemma2", **embedding), tmp_path / "third")
    assert any("embed_tokens" in w and "changes the head" in w for w in tied.warnings)
    both = {"target_modules": ["lm_head", "embed_tokens"]}
    untied = patched(make_world(tmp_path / "untied", "llama", **both), tmp_path / "other")
    assert not any("merging the adapter changes" in w for w in untied.warnings)


@pytest.mark.parametrize("trained", [True, False])
def test_the_bias_of_a_skipped_module_is_unscreened_only_if_it_was_trained(
    trained: bool, tmp_path: Path
) -> None:
    world = make_world(tmp_path, "qwen2", target_modules=["q_proj"], lora_bias=True)
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    layer = next(key for key in tensors if key.endswith("lora_B.weight"))
    tensors[layer].zero_()
    bias = layer.replace(".weight", ".bias")
    if not trained:
        tensors[bias].zero_()
    save_file(tensors, world.adapter / WEIGHTS_FILE)
    report = patched(world, tmp_path / "out")
    assert [part.name for part in report.unscreened] == ([bias] if trained else [])
    assert report.verdict == ("review" if trained else "patched")


def test_the_rounding_is_the_worst_of_a_modules_tensors(tmp_path: Path) -> None:
    world = make_world(tmp_path, use_dora=True)
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    coarse = {
        name: tensor.bfloat16() if "magnitude" in name else tensor
        for name, tensor in tensors.items()
    }
    save_file(coarse, world.adapter / WEIGHTS_FILE)
    report = patched(world, tmp_path / "out")
    assert all(1e-4 < (layer.rounding or 0) < 4e-3 for layer in report.layers)


def test_an_adapter_with_tokens_of_its_own_is_compared_by_those_that_all_have(
    tmp_path: Path,
) -> None:
    world = make_world(tmp_path, target_modules=["embed_tokens", "lm_head"])
    with_a_larger_vocabulary(world)
    report = patched(world, tmp_path / "out")
    assert all(
        "V is of the 64 tokens that all have (adapter 64, base 64, chat 72)" in layer.note
        for layer in report.layers
    )


@pytest.mark.parametrize("row", LINEAR_EXPERTS, ids=str)
def test_experts_adapted_one_by_one_agree_with_the_formulas_and_with_peft(
    row: Row, tmp_path: Path
) -> None:
    """By the checkpoint's names, because the loaded model has its experts in one parameter."""
    world, out = row.world(tmp_path), tmp_path / "out"
    report = patched(world, out)
    assert {layer.kind for layer in report.layers} >= {"gate", "q_proj"}
    base, chat = (load_file(folder / "model.safetensors") for folder in (world.base, world.chat))
    lora, expected = load_file(world.adapter / WEIGHTS_FILE), dict(chat)
    for layer in report.layers:
        name, key = f"{layer.module}.weight", f"base_model.model.{layer.module}.lora_"
        a, b = lora[f"{key}A.weight"].double(), lora[f"{key}B.weight"].double()
        c = reference.projector(chat[name], base[name], METHOD)
        assert layer.cosine == pytest.approx(reference.cosine(c, a, b), abs=COSINE_TOLERANCE)
        final = c @ b if layer.decision == "projected" else b
        expected[name] = (chat[name].double() + 2 * final @ a).float()  # s = 8 / 4
    merged = PeftModel.from_pretrained(load(world, world.chat), str(out)).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=WEIGHT_TOLERANCE), name
    save_file(expected, world.chat / "model.safetensors", {"format": "pt"})
    assert close(logits(merged.eval()), logits(load(world, world.chat)))


@pytest.mark.parametrize("side", ["A", "B"])
def test_nan_in_one_expert_names_that_expert(side: str, tmp_path: Path) -> None:
    world = make_world(tmp_path, "mixtral", target_modules=[], **EXPERTS)
    path = world.adapter / WEIGHTS_FILE
    tensors = load_file(path)
    key = f"base_model.model.model.layers.1.mlp.experts.base_layer.lora_{side}.weight"
    tensors[key][(5, 0) if side == "A" else (0, 5)] = float("nan")  # r = 4: row 5, column 5 of 8
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(NonFiniteTensor, match=rf"base_layer\.lora_{side}\.weight, expert 1"):
        patched(world, tmp_path / "out")


@pytest.mark.parametrize("change", [None, with_stacked_experts], ids=["apart", "stacked"])
def test_nan_in_one_expert_of_a_model_names_that_expert(
    change: Change | None, tmp_path: Path
) -> None:
    world = make_world(tmp_path, "mixtral", target_modules=[], **EXPERTS)
    if change:
        change(world)
    path = world.chat / "model.safetensors"
    tensors = load_file(path)
    if change:
        tensors["model.layers.1.mlp.experts.gate_up_proj"][1, 60, 0] = float("nan")
    else:
        key = "model.layers.1.block_sparse_moe.experts.1.w3.weight"
        tensors[key][0, 0] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    named = r"gate_up_proj\[1\]" if change else r"experts\.1\.w3\.weight"
    with pytest.raises(NonFiniteTensor, match=named):
        patched(world, tmp_path / "out")


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_a_refused_row_names_what_it_is(row: Row, tmp_path: Path) -> None:
    world = row.world(tmp_path)
    kind, named_in_message = row.refused or (AdapterSafetyError, "")
    with pytest.raises(kind, match=named_in_message):
        patched(world, tmp_path / "out")


@pytest.mark.parametrize("spelling", [without_prefix, named("mine")], ids=["no prefix", "mine"])
def test_what_is_refused_for_its_spelling_peft_does_not_load_either(
    spelling: Callable[[str], str], tmp_path: Path
) -> None:
    """If this fails, PEFT has learned to read the spelling, and we may accept it."""
    world = make_world(tmp_path)
    rename(world.adapter / WEIGHTS_FILE, spelling)
    with pytest.warns(UserWarning, match="Found missing adapter keys"):
        PeftModel.from_pretrained(world.chat_model(), str(world.adapter))


@pytest.mark.parametrize("architecture", MAKERS)
def test_every_linear_module_of_a_saved_model_is_found_with_its_own_values(
    architecture: str, tmp_path: Path
) -> None:
    model = MAKERS[architecture]()
    model.save_pretrained(tmp_path)
    saved = checkpoint(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    assert linear
    for name, module in linear.items():
        found = saved.weight(name)
        assert found, name
        assert torch.equal(tensors[found.entry.name], module.weight), name
        assert is_stored_transposed(saved.model_type, name) == isinstance(module, Conv1D)


def class_of(model_type: str) -> type[PreTrainedModel]:
    config = CONFIG_MAPPING[model_type]
    if config in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[config]
    return MODEL_FOR_CAUSAL_LM_MAPPING[config]


@pytest.mark.parametrize("model_type", sorted({*BASE_MODEL_PREFIX, *TIED_EMBEDDING, *STORED_AS}))
def test_the_tables_say_what_transformers_says(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    config = CONFIG_MAPPING[model_type].from_pretrained(tmp_path)
    kind = class_of(model_type)
    if model_type in BASE_MODEL_PREFIX:
        assert BASE_MODEL_PREFIX[model_type] == kind.base_model_prefix
    tied = {f"{OUTPUT_HEAD}.weight": f"{TIED_EMBEDDING[model_type]}.weight"}
    assert kind._tied_weights_keys == tied
    assert (model_type in TIED_BY_DEFAULT) == config.tie_word_embeddings
