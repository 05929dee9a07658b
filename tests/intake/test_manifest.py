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
        (f"{PRE}.lora_magnitude_vector", "DoRA"),
        (f"{PRE}.lora_magnitude_vector.default.weight", "DoRA"),
        (f"{PRE}.lora_B.bias", "bias"),
        (f"{PRE}.lora_diag", "KaSA"),
        (f"{PRE}.base_layer.weight", "base_layer"),
        (f"{PRE}.base_layer.lora_A.weight", "base_layer"),
        ("base_model.model.base_model.model.x.lora_A.weight", "wrapped in another"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding"),
        ("base_model.model.lm_head.modules_to_save.weight", "modules_to_save"),
        ("base_model.model.e.token_adapter.trainable_tokens_delta", "trainable tokens"),
        ("lora_unet_down_blocks_0.lora_down.weight", "kohya"),
        ("lora_te1_text_model.alpha", "kohya"),
        ("unet.down.attn.to_q.lora.up.weight", "diffusers"),
        ("unet.attn.to_q_lora.lora_linear_layer.down.weight", "a full weight|diffusers"),
        (f"{Q_PROJ}.lora_A.weight", "without PEFT's"),
        ("base_model.model.lm_head.weight", "a full weight"),
        ("base_model.model.norm.bias", "a full weight"),
    ],
)
def test_other_formats_are_named_with_the_tensor(name: str, feature: str, tmp_path: Path) -> None:
    raw = weights([*pair(), (name, [2, 6])])
    with pytest.raises(UnsupportedAdapter, match=feature) as caught:
        read_manifest(adapter(tmp_path, weights=raw))
    assert caught.value.facts["where"] == f"{WEIGHTS_FILE}, tensor {name}"


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
