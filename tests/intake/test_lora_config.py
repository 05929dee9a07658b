import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig as PeftLoraConfig

from app.domain.errors import ConfigRefused, Refused, TooLarge, UnsupportedAdapter
from app.intake.limits import Limits
from app.intake.lora_config import parse_config
from app.intake.lora_fields import KNOWN, NEUTRALISED, UNSUPPORTED
from tests.intake.files import CONFIG, config_bytes


def test_a_configuration_that_peft_saved_comes_back_byte_by_byte(tmp_path: Path) -> None:
    PeftLoraConfig(
        r=4, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj"], task_type="CAUSAL_LM",
        base_model_name_or_path="org/\u00fcber", rank_pattern={"q_proj": 2}, use_rslora=True,
        alpha_pattern={"q_proj": 2.5}, init_lora_weights="gaussian", layers_to_transform=[0, 1],
    ).save_pretrained(tmp_path)  # fmt: skip
    raw = (tmp_path / "adapter_config.json").read_bytes()
    config = parse_config(raw)
    assert json.dumps(config.clean, indent=2, sort_keys=False).encode() == raw
    assert config.dropped_keys == ()
    assert (config.r, config.lora_alpha, config.use_rslora) == (4, 32.0, True)
    assert config.rank_pattern == {"q_proj": 2}
    assert config.alpha_pattern == {"q_proj": 2.5}
    assert config.base_model_name == "org/\u00fcber"


def test_every_field_of_peft_is_known(tmp_path: Path) -> None:
    PeftLoraConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_bytes())
    assert saved.keys() <= KNOWN


def test_unknown_keys_and_import_sinks_are_dropped_in_order() -> None:
    raw = config_bytes(
        zeta=1,
        auto_mapping={"parent_library": "os", "base_model_class": "system"},
        megatron_core="evil.module",
        runtime_config={},
    )
    config = parse_config(raw)
    assert config.dropped_keys == ("zeta", "auto_mapping", "megatron_core", "runtime_config")
    assert config.clean == dict(CONFIG)


def test_import_sinks_at_their_harmless_values_are_kept() -> None:
    config = parse_config(config_bytes(auto_mapping=None, megatron_core="megatron.core"))
    assert config.dropped_keys == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_parameters", ["experts.w1"]),
        ("target_parameters", ["mlp.down_proj"]),
        ("target_parameters", ["c_attn.weight"]),
        ("layer_replication", [[0, 1]]),
        ("megatron_config", {}),
        ("alora_invocation_tokens", [1]),
        ("alora_invocation_tokens", []),
        ("use_qalora", True),
        ("use_bdlora", {}),
        ("arrow_config", {}),
        ("kasa_config", {}),
        ("velora_config", {}),
        ("monteclora_config", {}),
        ("corda_config", {}),
        ("lora_ga_config", {}),
        ("loftq_config", {"loftq_bits": 4}),
        ("ensure_weight_tying", True),
        *[
            ("init_lora_weights", name)
            for name in ("loftq", "pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "mica",
                         "new", 1)
        ],
        ("peft_type", "ADALORA"),
        ("peft_type", "lora"),
    ],
)  # fmt: skip
def test_an_adapter_of_another_kind_is_refused_naming_the_field(field: str, value: object) -> None:
    with pytest.raises(UnsupportedAdapter) as caught:
        parse_config(config_bytes(**{field: value}))
    assert caught.value.facts["where"] == f"adapter_config.json, field {field}"


@pytest.mark.parametrize(
    ("value", "feature", "is_convertible"),
    [
        ("pissa", "PiSSA", True),
        ("pissa_niter_16", "PiSSA", True),
        ("olora", "OLoRA", True),
        ("corda", "CorDA", True),
        ("lora_ga", "LoRA-GA", True),
        ("loftq", "LoftQ", False),
        ("mica", "MiCA", False),
    ],
)
def test_an_initialisation_is_named_with_pefts_way_to_convert_it(
    value: str, feature: str, *, is_convertible: bool
) -> None:
    with pytest.raises(UnsupportedAdapter) as caught:
        parse_config(config_bytes(init_lora_weights=value))
    assert caught.value.facts["feature"] == feature
    assert ("path_initial_model_for_weight_conversion" in str(caught.value)) == is_convertible


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (field, idle)
        for field, meant in UNSUPPORTED.items()
        for idle in meant.neutral
        if idle in NEUTRALISED.get(field, meant.neutral)
    ],
)
def test_a_field_that_is_not_in_use_is_kept(field: str, value: object) -> None:
    config = parse_config(config_bytes(**{field: value}))
    assert config.clean[field] == value
    assert config.dropped_keys == ()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("peft_type", [None, 3, ["LORA"]]),
        ("r", [0, -1, 4097, 10**9, 10**19, True, 8.0, "8", None, [8], 10**50]),
        ("lora_alpha", [0, -16, True, "16", None, 1e7, 1e-9, 10**19]),
        ("use_rslora", [1, "true", None]),
        ("fan_in_fan_out", [0, "false"]),
        ("inference_mode", ["yes"]),
        ("rank_pattern", [[], "q_proj", 3]),
        ("rank_pattern[q_proj]", [0, 10**9, True, 2.0, "2", None]),
        ("alpha_pattern[q_proj]", [0, True, "2", None, -1]),
        ("target_modules", [3, [3], ["a\0b"], {"a": 1}, ["x" * 513]]),
        ("exclude_modules", [3, [None]]),
        ("layers_to_transform", ["0", [True], [-1], 1.5]),
        ("layers_pattern", [1]),
        ("lora_dropout", [-0.1, 2, True, "0"]),
        ("eva_config", [[], "x"]),
        ("task_type", ["EVIL", 3]),
        ("base_model_name_or_path", [3, "a\nb", "x" * 513]),
        ("revision", [3, "\x1b[2J"]),
        ("peft_version", [1]),
        ("qalora_group_size", ["16", -1]),
    ],
)
def test_a_wrong_value_is_refused_naming_the_field(field: str, values: list[object]) -> None:
    outer, _, key = field.partition("[")
    for value in values:
        raw = config_bytes(**{outer: {key.rstrip("]"): value} if key else value})
        with pytest.raises(ConfigRefused) as caught:
            parse_config(raw)
        assert caught.value.facts["field"] in (field, "(the whole file)"), value


@pytest.mark.parametrize("field", ["peft_type", "r", "lora_alpha"])
def test_a_missing_field_is_named(field: str) -> None:
    raw = json.dumps({key: value for key, value in CONFIG.items() if key != field}).encode()
    with pytest.raises(ConfigRefused, match=f"field {field}: is missing"):
        parse_config(raw)


def test_a_large_file_and_a_large_table_are_refused() -> None:
    with pytest.raises(TooLarge, match=r"adapter_config\.json"):
        parse_config(config_bytes(), Limits(config_bytes=10))
    with pytest.raises(ConfigRefused, match="rank_pattern: 3 keys"):
        parse_config(config_bytes(rank_pattern={"a": 1, "b": 1, "c": 1}), Limits(patterns=2))
    with pytest.raises(ConfigRefused, match="over 512"):
        parse_config(config_bytes(rank_pattern={"a" * 513: 1}))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(deadline=None)  # because the machine is shared
@given(changes=st.dictionaries(st.sampled_from(sorted(KNOWN)) | st.text(max_size=5), VALUES))
def test_odd_configurations_raise_nothing_but_a_refusal(changes: dict[str, object]) -> None:
    try:
        config = parse_config(json.dumps({**CONFIG, **changes}).encode())
    except Refused:
        return
    assert parse_config(json.dumps(config.clean).encode()).dropped_keys == ()


@settings(deadline=None)  # because the machine is shared
@given(raw=st.binary(max_size=100))
def test_random_bytes_raise_nothing_but_a_refusal(raw: bytes) -> None:
    with pytest.raises(Refused):
        parse_config(raw)


@pytest.mark.parametrize("value", [False, "orthogonal"])
def test_an_initialisation_that_could_fill_modules_nobody_screened_is_not_written_back(
    value: object,
) -> None:
    config = parse_config(config_bytes(init_lora_weights=value))
    assert "init_lora_weights" not in config.clean
    assert config.dropped_keys == ("init_lora_weights",)


def test_a_dropped_key_is_named_in_one_short_printable_line() -> None:
    config = parse_config(config_bytes(**{"\x1b[2J\n## Verified safe" * 20: 1}))
    (named,) = config.dropped_keys
    assert named.isprintable()
    assert len(named) <= 64


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("use_dora", "yes", "use_dora"),
        ("use_dora", 1, "use_dora"),
        ("lora_bias", None, "lora_bias"),
        ("bias", None, "bias"),
        ("bias", "some", "bias"),
        ("modules_to_save", "lm_head", "modules_to_save"),
        ("modules_to_save", ["lm_head", 3], "modules_to_save"),
        ("modules_to_save", [""], "modules_to_save"),
        ("modules_to_save", ["x"] * 101, "modules_to_save"),
        ("trainable_token_indices", 7, "trainable_token_indices"),
        ("trainable_token_indices", [1, 1], "trainable_token_indices"),
        ("trainable_token_indices", [-1], "trainable_token_indices"),
        ("trainable_token_indices", [True], "trainable_token_indices"),
        ("trainable_token_indices", [10**9], "trainable_token_indices"),
        ("trainable_token_indices", list(range(50_001)), "trainable_token_indices"),
        ("trainable_token_indices", {"wte": [1, "2"]}, r"trainable_token_indices\[wte\]"),
        ("trainable_token_indices", {f"{i}": [] for i in range(101)}, "trainable_token_indices"),
    ],
)
def test_what_bypasses_lora_is_checked(field: str, value: object, named: str) -> None:
    with pytest.raises(ConfigRefused, match=f"field {named}"):
        parse_config(config_bytes(**{field: value}))


def test_what_bypasses_lora_is_read() -> None:
    config = parse_config(
        config_bytes(
            use_dora=True,
            lora_bias=True,
            bias="all",
            modules_to_save=["lm_head"],
            trainable_token_indices=[3, 1],
        )
    )
    assert (config.use_dora, config.lora_bias, config.bias) == (True, True, "all")
    assert config.modules_to_save == ("lm_head",)
    assert config.tokens == {"embed_tokens": (3, 1)}
    by_layer = parse_config(config_bytes(trainable_token_indices={"wte": [2]}))
    assert by_layer.tokens == {"wte": (2,)}
