import hashlib
import math
import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE, FileEntry, adapter_id
from app.domain.errors import (
    ConfigRefused,
    EmptyAdapter,
    MissingFile,
    PickleRefused,
    RankMismatch,
    TensorRefused,
    TooLarge,
    UnexpectedFile,
    UnsupportedAdapter,
)
from app.intake.limits import Limits
from app.intake.manifest import read_manifest
from tests.intake.files import GOOD_WEIGHTS, Q_PROJ, adapter, config_bytes, pair, weights


def test_a_sound_adapter_is_read_with_digests_modules_and_scaling(tmp_path: Path) -> None:
    manifest = read_manifest(adapter(tmp_path / "a"))
    (module,) = manifest.modules
    assert (module.name, module.rank, module.alpha, module.scaling) == (Q_PROJ, 2, 16.0, 8.0)
    assert (module.d_in, module.d_out) == (6, 4)
    assert manifest.files[WEIGHTS_FILE].sha256 == hashlib.sha256(GOOD_WEIGHTS).hexdigest()
    assert manifest.files[WEIGHTS_FILE].size_bytes == len(GOOD_WEIGHTS)
    assert manifest.base_model_name == "org/base"
    assert manifest.id == adapter_id(manifest.files)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # because PEFT 0.21 uses what transformers
@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # deprecates, and warns of GPT-2 without a Hub id
def test_what_peft_saves_is_read_as_peft_scales_it(tmp_path: Path) -> None:
    tiny = GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=16, n_positions=8)
    config = PeftLoraConfig(
        r=4, lora_alpha=6, target_modules=["c_attn", "c_fc"], use_rslora=True,
        rank_pattern={"h.1.mlp.c_fc": 2, r"(c_x|c_attn)": 3}, alpha_pattern={"c_fc": 10},
        fan_in_fan_out=True,
    )  # fmt: skip
    model = get_peft_model(GPT2LMHeadModel(tiny), config)
    model.save_pretrained(tmp_path)
    manifest = read_manifest(tmp_path)
    assert [module.name for module in manifest.modules] == [
        f"transformer.h.{layer}.{part}" for layer in (0, 1) for part in ("attn.c_attn", "mlp.c_fc")
    ]
    for module in manifest.modules:
        theirs = model.base_model.model.get_submodule(module.name)
        assert module.rank == theirs.r["default"]
        assert module.scaling == pytest.approx(theirs.scaling["default"])
        assert module.lora_a.shape == tuple(theirs.lora_A["default"].weight.shape)
        assert module.lora_b.shape == tuple(theirs.lora_B["default"].weight.shape)


def test_modules_come_in_module_order(tmp_path: Path) -> None:
    names = ["model.layers.10.q", "model.layers.2.q", "model.layers.2.k"]
    raw = weights(tensor for name in names for tensor in pair(name))
    modules = read_manifest(adapter(tmp_path, weights=raw)).modules
    assert [m.name for m in modules] == [
        "model.layers.2.k",
        "model.layers.2.q",
        "model.layers.10.q",
    ]


def test_a_and_b_are_told_apart_by_name_where_their_shapes_are_swapped(tmp_path: Path) -> None:
    raw = weights(pair(d_in=2, d_out=2))
    (module,) = read_manifest(adapter(tmp_path, weights=raw)).modules
    assert module.lora_a.name.endswith("lora_A.weight")
    assert module.lora_b.name.endswith("lora_B.weight")


def test_rslora_scales_by_the_root_of_the_rank(tmp_path: Path) -> None:
    folder = adapter(tmp_path, config_bytes(use_rslora=True))
    assert read_manifest(folder).modules[0].scaling == pytest.approx(16 / math.sqrt(2))


def test_factors_of_two_float_dtypes_are_taken(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    prefix = f"base_model.model.{Q_PROJ}"
    tensors = {
        f"{prefix}.lora_A.weight": torch.ones(2, 6, dtype=torch.bfloat16),
        f"{prefix}.lora_B.weight": torch.ones(4, 2, dtype=torch.float64),
    }
    save_file(tensors, folder / WEIGHTS_FILE)
    (module,) = read_manifest(folder).modules
    assert (module.lora_a.dtype, module.lora_b.dtype) == ("BF16", "F64")


@pytest.mark.parametrize("dtype", ["I8", "U8", "F8_E4M3", "BOOL", "I32"])
def test_a_dtype_that_we_do_not_compute_with_is_named(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapter, match=rf"{dtype}.*{Q_PROJ}"):
        read_manifest(adapter(tmp_path, weights=weights(pair(), dtype)))


def test_a_rank_that_contradicts_the_configuration_names_module_and_tensor(tmp_path: Path) -> None:
    with pytest.raises(RankMismatch) as caught:
        read_manifest(adapter(tmp_path, weights=weights(pair(rank=3))))
    facts = caught.value.facts
    assert (facts["module"], facts["expected"], facts["found"]) == (Q_PROJ, 2, 3)
    assert str(facts["tensor"]).endswith("lora_A.weight")


def test_factors_of_two_ranks_name_the_wrong_one(tmp_path: Path) -> None:
    (a, _), (_, b) = pair(rank=2), pair(rank=5)
    with pytest.raises(RankMismatch, match=r"lora_B\.weight has 5"):
        read_manifest(adapter(tmp_path, weights=weights([a, b])))


def test_a_rank_pattern_decides_for_its_modules(tmp_path: Path) -> None:
    config = config_bytes(rank_pattern={"q_proj": 3}, alpha_pattern={"layers.0.*": 6})
    (module,) = read_manifest(adapter(tmp_path, config, weights(pair(rank=3)))).modules
    assert (module.rank, module.alpha, module.scaling) == (3, 6.0, 2.0)


@pytest.mark.parametrize("left_out", [0, 1])
def test_a_factor_without_the_other_is_named(left_out: int, tmp_path: Path) -> None:
    alone = pair()[1 - left_out]
    with pytest.raises(TensorRefused) as caught:
        read_manifest(adapter(tmp_path, weights=weights([alone])))
    assert caught.value.facts["tensor"] == alone[0]


def test_a_factor_with_three_axes_is_named(tmp_path: Path) -> None:
    (name, _), b = pair()
    with pytest.raises(TensorRefused, match=name):
        read_manifest(adapter(tmp_path, weights=weights([(name, [2, 6, 1]), b])))


PRE = f"base_model.model.{Q_PROJ}"


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        (f"{PRE}.lora_A.default.weight", "the adapter's name beside keys without it"),
        (f"{PRE}.lora_A.mine.weight", "the adapter's name in it"),
        (f"{PRE}.lora_diag", "KaSA"),
        (f"{PRE}.base_layer.lora_A.weight", "several parameters"),
        ("base_model.model.base_model.model.x.lora_A.weight", "wrapped in another"),
        ("base_model.model.lm_head.modules_to_save.weight", "modules_to_save"),
        ("lora_unet_down_blocks_0.lora_down.weight", "kohya"),
        ("lora_te1_text_model.alpha", "kohya"),
        ("unet.down.attn.to_q.lora.up.weight", "diffusers"),
        ("unet.attn.to_q_lora.lora_linear_layer.down.weight", "diffusers"),
        (f"{Q_PROJ}.lora_A.weight", "without PEFT's"),
    ],
)
def test_other_formats_are_named_with_the_tensor(name: str, feature: str, tmp_path: Path) -> None:
    raw = weights([*pair(), (name, [2, 6])])
    with pytest.raises(UnsupportedAdapter, match=feature) as caught:
        read_manifest(adapter(tmp_path, weights=raw))
    assert caught.value.facts["where"] == f"{WEIGHTS_FILE}, tensor {name}"


EMBEDDING = "base_model.model.model.embed_tokens"
HEAD = "base_model.model.lm_head"


@pytest.mark.parametrize(
    ("more", "config", "named"),
    [
        ([(f"{PRE}.lora_magnitude_vector", [4])], {}, "no use_dora"),
        ([(f"{PRE}.lora_magnitude_vector", [5])], {"use_dora": True}, r"\[5\].* 4 elements"),
        ([(f"{PRE}.lora_magnitude_vector", [4, 1])], {"use_dora": True}, "1 axes"),
        ([(f"{PRE}.lora_B.bias", [4])], {}, "no lora_bias"),
        ([(f"{PRE}.lora_B.bias", [6])], {"lora_bias": True}, r"\[6\].* 4 elements"),
        ([(f"{PRE}.lora_embedding_A", [2, 6])], {}, "an embedding|other LoRA factor"),
        ([(f"{EMBEDDING}.lora_embedding_A", [2, 6])], {}, "lacks its other"),
        ([(f"{HEAD}.weight", [4, 6])], {}, "no field"),
        ([(f"{HEAD}.base_layer.weight", [4, 6])], {}, "no field"),
        ([(f"{HEAD}.bias", [4])], {"bias": "none"}, "no field"),
        ([(f"{HEAD}.weight", [4, 6])], {"bias": "all"}, "no field"),
        ([(f"{EMBEDDING}.token_adapter.trainable_tokens_delta", [1, 6])], {}, "no field"),
    ],
    ids=str,
)
def test_a_part_that_contradicts_the_configuration_is_named(
    more: list[tuple[str, list[int]]], config: dict[str, object], named: str, tmp_path: Path
) -> None:
    raw = weights([*pair(), *more])
    with pytest.raises(TensorRefused, match=named) as caught:
        read_manifest(adapter(tmp_path, config_bytes(**config), raw))
    assert caught.value.facts["tensor"] == more[0][0]


@pytest.mark.parametrize(
    ("config", "more", "named"),
    [
        ({"use_dora": True}, [], "field use_dora.*q_proj has no lora_magnitude_vector"),
        ({"lora_bias": True}, [], "field lora_bias.*q_proj has no lora_B.bias"),
        ({"modules_to_save": ["score"]}, [], "field modules_to_save: names score"),
        (
            {"trainable_token_indices": [1, 2]},
            [(f"{EMBEDDING}.token_adapter.trainable_tokens_delta", [3, 6])],
            "field trainable_token_indices: names 2 tokens",
        ),
    ],
    ids=str,
)
def test_a_field_that_contradicts_the_tensors_is_named(
    config: dict[str, object], more: list[tuple[str, list[int]]], named: str, tmp_path: Path
) -> None:
    raw = weights([*pair(), *more])
    with pytest.raises(ConfigRefused, match=named):
        read_manifest(adapter(tmp_path, config_bytes(**config), raw))


def test_full_weights_are_listed_with_the_field_that_asks_for_them(tmp_path: Path) -> None:
    config = config_bytes(
        modules_to_save=["head", "norm"], bias="lora_only", trainable_token_indices=[7]
    )
    raw = weights(
        [
            *pair(),
            (f"{HEAD}.weight", [4, 6]),
            ("base_model.model.model.layers.0.input_layernorm.weight", [6]),
            (f"{PRE}.base_layer.bias", [4]),
            (f"{PRE}.base_layer.weight", [4, 6]),
            (f"{EMBEDDING}.token_adapter.trainable_tokens_delta", [1, 6]),
        ]
    )
    found = read_manifest(adapter(tmp_path, config, raw)).full_weights
    assert [(weight.name, weight.feature) for weight in found] == [
        ("lm_head.weight", "modules_to_save"),
        ("model.embed_tokens.weight", "trainable_token_indices"),
        ("model.layers.0.input_layernorm.weight", "modules_to_save"),
        (f"{Q_PROJ}.bias", "bias"),
        (f"{Q_PROJ}.weight", "save_embedding_layers"),
    ]


def test_keys_with_pefts_default_adapter_name_are_the_same_modules(tmp_path: Path) -> None:
    named = [(name.replace(".weight", ".default.weight"), shape) for name, shape in pair()]
    (module,) = read_manifest(adapter(tmp_path, weights=weights(named))).modules
    assert module.name == Q_PROJ
    assert module.lora_a.name == f"{PRE}.lora_A.default.weight"


def test_the_default_name_without_the_prefix_is_still_refused(tmp_path: Path) -> None:
    raw = weights([(f"{Q_PROJ}.lora_A.default.weight", [2, 6])])
    with pytest.raises(UnsupportedAdapter, match="without PEFT's"):
        read_manifest(adapter(tmp_path, weights=raw))


@pytest.mark.parametrize("name", ["x", f"{PRE}.lora_C.weight", "base_model.model.lora_A.weight"])
def test_a_tensor_of_no_known_format_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises((TensorRefused, UnsupportedAdapter), match=name):
        read_manifest(adapter(tmp_path, weights=weights([*pair(), (name, [2, 6])])))


def test_no_module_is_an_empty_adapter(tmp_path: Path) -> None:
    with pytest.raises(EmptyAdapter, match=WEIGHTS_FILE):
        read_manifest(adapter(tmp_path, weights=weights([])))


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    (adapter(tmp_path) / name).unlink()
    with pytest.raises(MissingFile, match=name):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "x.PT", "a.pth", "a.ckpt", "a.pkl", "a.pickle"]
)
def test_a_pickle_is_called_one_even_where_the_safetensors_file_is_missing(
    name: str, tmp_path: Path
) -> None:
    adapter(tmp_path, **{name: b"x", "another.txt": b"x"})
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(PickleRefused, match=name):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", ".hidden", "Adapter_config.json", "a\nb", "readme.md"]
)
def test_any_other_file_is_unexpected(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnexpectedFile) as caught:
        read_manifest(adapter(tmp_path, **{name: b""}))
    assert caught.value.facts["file"] == name.replace("\n", "\\n")


def test_a_readme_is_kept_when_it_is_text(tmp_path: Path) -> None:
    manifest = read_manifest(adapter(tmp_path, **{README_FILE: "# Über".encode()}))
    assert manifest.files[README_FILE].size_bytes == 7
    for raw in (b"\xff\xfe", b"a\0b"):
        with pytest.raises(UnexpectedFile, match=README_FILE):
            read_manifest(adapter(tmp_path, **{README_FILE: raw}))


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, README_FILE])
def test_links_folders_and_pipes_are_not_opened(name: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"secret")
    path = adapter(tmp_path / "a") / name
    for make in (lambda: path.symlink_to(elsewhere), path.mkdir, lambda: os.mkfifo(path)):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        make()
        with pytest.raises(UnexpectedFile, match=name):
            read_manifest(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        (CONFIG_FILE, Limits(config_bytes=10)),
        (WEIGHTS_FILE, Limits(weights_bytes=10)),
        (README_FILE, Limits(readme_bytes=1)),
    ],
)
def test_a_file_over_its_limit_is_named(name: str, limits: Limits, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match=name):
        read_manifest(adapter(tmp_path, **{README_FILE: b"text"}), limits)


def test_a_digest_that_is_known_is_not_computed_again(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    known = {WEIGHTS_FILE: FileEntry("f" * 64, len(GOOD_WEIGHTS))}
    assert read_manifest(folder, known=known).files[WEIGHTS_FILE] == known[WEIGHTS_FILE]
    shorter = {WEIGHTS_FILE: FileEntry("f" * 64, len(GOOD_WEIGHTS) - 1)}
    found = read_manifest(folder, known=shorter).files[WEIGHTS_FILE]
    assert found.sha256 == hashlib.sha256(GOOD_WEIGHTS).hexdigest()
