"""Which architectures and configurations work, row by row, and what becomes of the others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.domain.errors import (
    AdapterSafetyError,
    AdapterShapesDiffer,
    CheckpointRefused,
    ConfigRefused,
    ModulesNotInModel,
    RankMismatch,
    TensorRefused,
    UnsupportedAdapter,
)
from tests.factory import World, make_world
from tests.workers.breadth_changes import (
    Change,
    as_llava_was_before_4_52,
    in_float8,
    keys,
    linear_experts,
    named,
    of_a_model_with_more_experts,
    of_another_family,
    of_the_language_model_alone,
    one_of,
    only_a_named,
    said,
    with_a_larger_vocabulary,
    with_a_shard_cut_short,
    with_a_smaller_base,
    with_stacked_experts,
    with_the_towers_of_transformers_4,
    without_a_shard,
    without_a_word_on_tying,
    without_prefix,
)


@dataclass(frozen=True)
class Row:
    """One line of the table of what is supported."""

    architecture: str
    kind: str
    comment: str = ""
    lora: Mapping[str, object] = field(default_factory=dict)
    change: Change | None = None
    refused: tuple[type[AdapterSafetyError], str] | None = None  # the class, what it must name

    def __str__(self) -> str:
        return f"{self.architecture}: {self.kind}"

    def world(self, folder: Path) -> World:
        world = make_world(folder, self.architecture, **self.lora)
        if self.change:
            self.change(world)
        return world


ALL = {"target_modules": "all-linear"}
HEAD = {"target_modules": ["lm_head"]}
Q_V = {"target_modules": ["q_proj", "v_proj"]}
TIED_HEAD = "config.json ties the head: its weight is the embedding's"

EXPERTS = {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}

SUPPORTED = (
    Row("llama", "all-linear", "grouped-query attention: k and v are narrower than q", ALL),
    Row("llama", "lm_head", "untied", HEAD),
    Row("llama", "adapter name in the keys", ".default. only", Q_V, keys(named("default"))),
    Row(
        "mistral",
        "regex target_modules",
        "the regex is never run: the tensors decide",
        {"target_modules": r".*layers\.[01]\.(self_attn\.(q|k)|mlp\.down)_proj"},
    ),
    Row("qwen2", "use_rslora", "biases on q, k and v", {**ALL, "use_rslora": True}),
    Row("tied qwen2", "lm_head", TIED_HEAD, {"target_modules": ["lm_head", "q_proj"]}),
    Row(
        "qwen3",
        "rank_pattern and alpha_pattern",
        "first matching key wins, as in PEFT",
        {
            **ALL,
            "rank_pattern": {r"layers\.1\..*_proj": 2, "q_proj": 6},
            "alpha_pattern": {"v_proj": 32},
        },
    ),
    Row("gemma2", "all-linear", "tied, but PEFT's all-linear leaves the head out", ALL),
    Row("gemma2", "lm_head", TIED_HEAD, HEAD),
    Row(
        "gemma3_text",
        "layers_to_transform",
        lora={**Q_V, "layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    Row("gemma3_text", "lm_head", "tied by default", HEAD, without_a_word_on_tying),
    Row(
        "phi3",
        "fused projections",
        "qkv_proj and gate_up_proj are one module each",
        {"target_modules": ["qkv_proj", "gate_up_proj"]},
    ),
    Row("gpt2", "all-linear", "Conv1D: weights stored as (d_in, d_out)", ALL),
    Row("gpt2", "lm_head", TIED_HEAD, {**HEAD, "fan_in_fan_out": False}, without_a_word_on_tying),
    Row("gpt2", "adapter name in the keys", ".default. only", ALL, keys(named("default"))),
    Row(
        "opt",
        "exclude_modules",
        "with project_in and project_out",
        {**ALL, "exclude_modules": ["fc1", "k_proj"]},
    ),
    Row("opt", "lm_head", TIED_HEAD, HEAD),
    Row("gpt_neox", "all-linear", "fused query_key_value", ALL),
    Row("gpt_neox", "lm_head", "saved as embed_out", {"target_modules": ["lm_head", "dense"]}),
    Row("falcon", "all-linear", "fused query_key_value", ALL),
    Row("falcon", "lm_head", TIED_HEAD, HEAD),
    Row("mixtral", "attention", "", {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}),
    Row("qwen3_moe", "attention", "", {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}),
    Row("mixtral", "all-linear", "router, and each expert of 3-D parameters", ALL),
    Row("mixtral", "router", "a parameter in transformers 5", {"target_modules": ["gate"]}),
    Row("mixtral", "experts and rank_pattern", "nested: down_proj is the outer one",
        {**EXPERTS, "target_modules": ["q_proj"], "rank_pattern": {"experts.down_proj": 2},
         "alpha_pattern": {"experts.gate_up_proj": 3}, "use_rslora": True}),
    Row("mixtral", "experts stored as 3-D tensors", "",
        {**EXPERTS, "target_modules": []}, with_stacked_experts),
    Row("qwen3_moe", "all-linear", "router, and each expert of 3-D parameters", ALL),
    Row("qwen3_moe", "experts by their older names", "PEFT makes them one parameter",
        {"target_modules": ["gate_proj", "up_proj"]}),
    Row("qwen3_moe", "experts by name", "",
        {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]}),
    Row("llava", "all-linear", "language and vision tower, projector", ALL),
    Row("llava", "lm_head", "saved as language_model.lm_head", HEAD),
    Row(
        "llava",
        "towers as saved by transformers 4",
        "vision_tower.vision_model. in the checkpoint",
        ALL,
        with_the_towers_of_transformers_4,
    ),
    Row(
        "llava",
        "keys as saved before transformers 4.52",
        "language_model.model. in the adapter",
        {"target_modules": r".*language_model.*(q|v)_proj"},
        keys(as_llava_was_before_4_52),
    ),
    Row("llava", "adapter name in the keys", ".default. only", Q_V, keys(named("default"))),
    Row("paligemma", "all-linear", "language and vision tower, projector", ALL),
    Row("paligemma", "lm_head", TIED_HEAD, HEAD),
    Row("gemma3", "all-linear", "language and vision tower", ALL),
    Row("qwen2_vl", "all-linear", "language and vision tower", ALL),
    Row("qwen2_5_vl", "all-linear", "language and vision tower", ALL),
    Row("llama", "DoRA", "a selected module's magnitude becomes the chat weight's own norm",
        {**ALL, "use_dora": True}),
    Row("qwen2", "DoRA", "with biases", {**Q_V, "use_dora": True}),
    Row("gpt2", "DoRA", "Conv1D", {**ALL, "use_dora": True}),
    Row("llama", "DoRA and rank_pattern", "",
        {**Q_V, "use_dora": True, "rank_pattern": {"v_proj": 2}, "use_rslora": True}),
    Row("llama", "embedding", "V is taken as (d, vocabulary)",
        {"target_modules": ["embed_tokens", "q_proj"]}),
    Row("gpt2", "embedding", "", {"target_modules": ["wte", "c_attn"]}),
    Row("llama", "embedding, DoRA", "",
        {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}),
    Row("llama", "embedding and head, resized vocabulary", "V is of the tokens that all have",
        {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}, with_a_smaller_base),
    Row("llama", "fan_in_fan_out true", "the model decides; PEFT corrects it as well", Q_V,
        said(fan_in_fan_out=True)),
    Row("gpt2", "fan_in_fan_out false", "the model decides; PEFT corrects it as well", ALL,
        said(fan_in_fan_out=False)),
    Row("qwen2", "lora_bias", "projected with its module",
        {**Q_V, "lora_bias": True, "use_rslora": True}),
    Row("tied qwen2", "lm_head, saved with its full weight",
        "PEFT's default for lm_head; the full weight is not screened",
        {**HEAD, "save_embedding_layers": "auto"}),
    Row("llama", "embedding, saved with its full weight", "PEFT's default; not screened",
        {"target_modules": ["embed_tokens"], "save_embedding_layers": "auto"}),
    Row("llama", "modules_to_save", "kept, not screened; verdict review",
        {**Q_V, "modules_to_save": ["norm", "lm_head"]}),
    Row("qwen2", "bias all", "kept, not screened; verdict review", {**Q_V, "bias": "all"}),
    Row("qwen2", "bias lora_only", "kept, not screened; verdict review",
        {**Q_V, "bias": "lora_only"}),
    Row("llama", "trainable_token_indices", "kept, not screened; verdict review",
        {**Q_V, "trainable_token_indices": [1, 5, 60]}),
    Row("llama", "trainable_token_indices by layer", "kept, not screened; verdict review",
        {**Q_V, "trainable_token_indices": {"embed_tokens": [2], "lm_head": [3, 4]}}),
)  # fmt: skip

FULL_WEIGHTS = tuple(row for row in SUPPORTED if "not screened" in row.comment)

LINEAR_EXPERTS = (
    Row(
        "mixtral",
        "experts and router as linear modules",
        "adapters trained under transformers 4; PEFT joins the experts when it loads them",
        Q_V,
        linear_experts("w1", "w2", "w3", "gate", "q_proj"),
    ),
    Row(
        "qwen3_moe",
        "experts and router as linear modules",
        "adapters trained under transformers 4; PEFT joins the experts when it loads them",
        Q_V,
        linear_experts("gate_proj", "up_proj", "down_proj", "gate", "q_proj"),
    ),
)

REFUSED = (
    Row(
        "llama",
        "keys without base_model.model.",
        "PEFT loads nothing from them, but for mixtral, qwen3_moe and llava",
        Q_V,
        keys(without_prefix),
        (UnsupportedAdapter, r"without PEFT's.*q_proj\.lora_A\.weight.*save_pretrained"),
    ),
    Row(
        "llama",
        "another adapter's name in the keys",
        "PEFT loads nothing from them",
        Q_V,
        keys(named("mine")),
        (UnsupportedAdapter, r"adapter's name.*q_proj\.lora_A\.mine\.weight.*save_pretrained"),
    ),
    Row(
        "llama",
        "mixed spellings of the keys",
        "",
        Q_V,
        keys(only_a_named),
        (UnsupportedAdapter, r"beside keys without.*tensor .*q_proj\.lora_B\.weight"),
    ),
    *(
        Row("llama", f"init_lora_weights {name}", "it changes the base model's weights", Q_V,
            said(init_lora_weights=name), (UnsupportedAdapter, rf"{shown}.*save_pretrained"))
        for name, shown in {"pissa": "PiSSA", "pissa_niter_16": "PiSSA", "olora": "OLoRA",
                            "corda": "CorDA", "lora_ga": "LoRA-GA"}.items()
    ),
    Row("llama", "init_lora_weights loftq", "it replaces the base model's weights", Q_V,
        said(init_lora_weights="loftq"), (UnsupportedAdapter, "LoftQ")),
    Row("llama", "a rank that the tensors do not have", "", Q_V, said(r=5),
        (RankMismatch, r"q_proj: adapter_config.json says rank 5, .*lora_A\.weight has 4")),
    Row("llama", "a rank_pattern that the tensors do not have", "", Q_V,
        said(rank_pattern={"v_proj": 7}), (RankMismatch, r"v_proj: .* rank 7, .* has 4")),
    Row("llama", "kohya's keys beside PEFT's", "", Q_V, keys(one_of("lora_unet_q.lora_up.weight")),
        (UnsupportedAdapter, r"kohya's format.*lora_unet_q\.lora_up\.weight")),
    Row("llama", "diffusers' keys beside PEFT's", "", Q_V, keys(one_of("q.lora.up.weight")),
        (UnsupportedAdapter, r"diffusers' format.*q\.lora\.up\.weight")),
    Row("llama", "another PEFT method", "IA3, AdaLoRA, prompt tuning, ...", Q_V,
        said(peft_type="IA3"), (UnsupportedAdapter, "PEFT type IA3")),
    Row("llama", "chat model in float8", "quantised: method, tensor and dtype are named", Q_V,
        in_float8, (CheckpointRefused, r"quantised by fp8: tensor .*q_proj\.weight has dtype F8")),
    Row("llama", "base and chat model of different families", "", Q_V, of_another_family,
        (CheckpointRefused, "model_type is mistral, the base model's is llama")),
    Row("llama", "a shard that is missing", "", Q_V, without_a_shard,
        (CheckpointRefused, r"model-00002.*is missing, though model\.safetensors\.index\.json")),
    Row("llama", "a shard that was cut short", "", Q_V, with_a_shard_cut_short,
        (CheckpointRefused, r"model-00002.*cut short: 8 bytes")),
    Row("llama", "DoRA without use_dora", "", {**Q_V, "use_dora": True}, said(use_dora=False),
        (TensorRefused, r"q_proj\.lora_magnitude_vector.*no use_dora")),
    Row("llama", "use_dora without magnitudes", "", Q_V, said(use_dora=True),
        (ConfigRefused, r"use_dora.*q_proj has no lora_magnitude_vector")),
    Row("llama", "modules_to_save without their weights", "", Q_V, said(modules_to_save=["score"]),
        (ConfigRefused, r"modules_to_save.*score")),
    Row("llama", "a full weight that nothing asks for", "PEFT would load it all the same",
        {**Q_V, "modules_to_save": ["norm"]}, said(modules_to_save=None),
        (TensorRefused, r"norm\.weight is refused.*no field")),
    Row("llama", "DoRA, adapter of another vocabulary", "its magnitudes are norms over all of it",
        {"target_modules": ["embed_tokens"], "use_dora": True}, with_a_larger_vocabulary,
        (AdapterShapesDiffer, r"chat_model .*embed_tokens: \[72, 32\] against \[64, 32\]")),
    Row("llama", "a linear layer as a parameter", "",
        {"target_modules": [], "target_parameters": ["q_proj.weight"]},
        refused=(UnsupportedAdapter, r"parameters other than .*q_proj\.weight.*target_parameters")),
    Row("mixtral", "nested experts that the configuration does not tell apart", "",
        {**EXPERTS, "target_modules": []}, said(target_parameters=["experts.down_proj"]),
        (ConfigRefused, r"target_parameters.*1 parameters of .*experts.* has 2")),
    Row("mixtral", "nested experts without target_parameters", "",
        {**EXPERTS, "target_modules": []}, said(target_parameters=None),
        (UnsupportedAdapter, r"several parameters of one module.*experts\.base_layer")),
    Row("mixtral", "an adapter of fewer experts", "",
        {"target_modules": [], "target_parameters": ["experts.down_proj"]},
        of_a_model_with_more_experts,
        (AdapterShapesDiffer, r"experts\.down_proj: the adapter has 2 experts")),
    Row(
        "llava",
        "adapter of the language model alone",
        "its names have another root",
        Q_V,
        of_the_language_model_alone,
        (ModulesNotInModel, r"model\.layers\.0\.self_attn\.q_proj"),
    ),
)  # fmt: skip

PEFTS_WARNINGS = (
    pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings=True`"),
    # because PEFT tells that merging a tied head needs care, which `untie` takes
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to"),
    # because PEFT tells that it corrects the value
    pytest.mark.filterwarnings("ignore:.*LoRA tensor.s. have invalid shape.*lora_B.bias"),
    # because PEFT 0.21 forgets that the bias of lora_bias has one axis
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`"),
    # because that is PEFT's default, and a refused row shows what becomes of it
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match"),
    # because PEFT writes patterns for experts that it then does not find
)
