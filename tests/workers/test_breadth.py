"""Which architectures and configurations work, row by row, and what becomes of the others.

Models are tiny and random, made with transformers; adapters are made with PEFT. Nothing here uses
our own join: weights come from the modules of the loaded model.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.auto import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)
from transformers.pytorch_utils import Conv1D

from app.domain.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    AdapterManifest,
    StoredModule,
    TensorEntry,
)
from app.domain.architecture import (
    BASE_MODEL_PREFIX,
    OUTPUT_HEAD,
    STORED_AS,
    TIED_BY_DEFAULT,
    TIED_EMBEDDING,
    expert_of,
    is_stored_transposed,
)
from app.domain.checkpoint import Checkpoint
from app.domain.errors import (
    AdapterSafetyError,
    AdapterShapesDiffer,
    CheckpointRefused,
    ConfigRefused,
    ModulesNotInModel,
    NonFiniteTensor,
    RankMismatch,
    TensorRefused,
    UnsupportedAdapter,
)
from app.domain.method import Method, Selection
from app.domain.report import Report
from app.intake.checkpoint import read_checkpoint
from app.intake.manifest import read_manifest
from app.intake.preflight import check_fit
from tests.alignment import reference
from tests.factory import MAKERS, World, make_world, save_adapter
from workers.output import write_patched_adapter
from workers.pipeline import NamedCheckpoint, PatchInput

METHOD = Method("approximate", select=Selection("fraction", 0.5))
COSINE_TOLERANCE = 1e-6
B_TOLERANCE = 1e-5  # relative
WEIGHT_TOLERANCE = 2e-6  # absolute, because PEFT merges in float32
LOGIT_TOLERANCE = 1e-4  # of the largest logit, because float32 sums go through all layers
TOKENS = torch.arange(8)[None]

Change = Callable[[World], None]
"""Alters the files of a world before it is used."""


# ----------------------------------------------------------------------------- changes of the files
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


# --------------------------------------------------------------------------------------------- rows
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
    # because PEFT tells that merging a tied head needs care, which `untie` below takes
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to"),
    # because PEFT tells that it corrects the value
    pytest.mark.filterwarnings("ignore:.*LoRA tensor.s. have invalid shape.*lora_B.bias"),
    # because PEFT 0.21 forgets that the bias of lora_bias has one axis
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`"),
    # because that is PEFT's default, and a refused row shows what becomes of it
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match"),
    # because PEFT writes patterns for experts that it then does not find
)
pytestmark = list(PEFTS_WARNINGS)


# ------------------------------------------------------------------------------------------ helpers
def checkpoint(folder: Path) -> Checkpoint:
    return read_checkpoint(folder, field="model", model="org/model")


def stored(manifest: AdapterManifest) -> list[StoredModule]:
    return [StoredModule.of(module) for module in manifest.modules]


def patched(world: World, out: Path, method: Method = METHOD) -> Report:
    """Through every gate that a job goes through."""
    manifest = read_manifest(world.adapter)
    base, chat = checkpoint(world.base), checkpoint(world.chat)
    check_fit(stored(manifest), base, chat, "org/base", "org/chat")
    models = (NamedCheckpoint("org/base", base), NamedCheckpoint("org/chat", chat))
    out.mkdir()
    return write_patched_adapter(
        PatchInput(world.adapter, manifest, *models, method),
        out,
        threads=1,
        on_module=lambda _: None,
    )


def load(world: World, folder: Path) -> PreTrainedModel:
    model = type(MAKERS[world.architecture]()).from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def untie(model: PreTrainedModel) -> PreTrainedModel:
    """As PEFT advises before merging into a tied head: it would change the embedding as well."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False
    return model


def theirs(name: str, model: PreTrainedModel) -> str:
    """The module in a model of transformers 5 that an older adapter's name means."""
    new = name.replace("language_model.model.", "model.language_model.", 1)
    return name if name in dict(model.named_modules()) else new


def dense(model: PreTrainedModel, name: str) -> Tensor:
    """The module's weight as `(d_out, d_in)` float64."""
    if expert := expert_of(name):
        return model.get_parameter(expert.parameter)[expert.number].detach().double()
    module = model.get_submodule(theirs(name, model))
    weight = module.weight.detach().double()
    return weight.T if isinstance(module, Conv1D | nn.Embedding) else weight


def own(tensors: Mapping[str, Tensor], entry: TensorEntry) -> Tensor:
    """A module's factor; an expert's by the reshapes that PEFT makes."""
    whole, part = tensors[entry.name], entry.part
    if part is None:
        return whole
    if part.axis == 0:
        return whole.reshape(part.count, -1, whole.shape[1])[part.index]
    return whole.reshape(whole.shape[0], -1, part.count)[:, :, part.index]


def set_by_hand(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    with torch.no_grad():
        for name, weight in weights.items():
            if expert := expert_of(name):
                model.get_parameter(expert.parameter)[expert.number].copy_(weight)
                continue
            module = model.get_submodule(theirs(name, model))
            is_transposed = isinstance(module, Conv1D | nn.Embedding)
            module.weight.copy_(weight.T if is_transposed else weight)
    return model


def add_parameters(model: PreTrainedModel, values: Mapping[str, Tensor]) -> PreTrainedModel:
    """Add to the model's own parameters, by name; a bias that it lacks is made."""
    with torch.no_grad():
        for name, value in values.items():
            module = model.get_submodule(name.rpartition(".")[0])
            parameter = getattr(module, name.rpartition(".")[2])
            if parameter is None:
                module.bias = nn.Parameter(value.float())
            else:
                parameter += value
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits.double()


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= LOGIT_TOLERANCE * expected.abs().max())


def shared(w_chat: Tensor, w_base: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns that both have, of `(d_out, d_in)` weights."""
    rows, columns = (min(sizes) for sizes in zip(w_chat.shape, w_base.shape, strict=True))
    return w_chat[:rows, :columns], w_base[:rows, :columns]


def projector_of(w_chat: Tensor, w_base: Tensor, method: Method) -> Tensor:
    """`C` `(d_out, d_out)` for the chat model's outputs; zero for those that the base lacks."""
    c = torch.zeros(len(w_chat), len(w_chat), dtype=torch.float64)
    inner = reference.projector(*shared(w_chat, w_base), method)
    c[: len(inner), : len(inner)] = inner
    return c


@dataclass
class Expected:
    """The model that the returned adapter should make of the chat model."""

    weights: dict[str, Tensor] = field(default_factory=dict)  # by module, (d_out, d_in) float64
    added: dict[str, Tensor] = field(default_factory=dict)  # by parameter


def expected(world: World, report: Report, out: Path, method: Method = METHOD) -> Expected:
    """`W + s C B A` where projected, else `W + s B A`; each cosine and B is checked on the way."""
    before, after = load_file(world.adapter / WEIGHTS_FILE), load_file(out / WEIGHTS_FILE)
    base, chat = load(world, world.base), untie(load(world, world.chat))
    manifest = read_manifest(world.adapter)
    modules = {module.name: module for module in manifest.modules}
    assert list(modules) == [layer.module for layer in report.layers]
    found, cosines = Expected(), []
    apply_full_weights(chat, out)
    for layer in report.layers:
        module = modules[layer.module]
        a, b = own(before, module.lora_a), own(before, module.lora_b)
        w_chat, w_base = dense(load(world, world.chat), module.name), dense(base, module.name)
        c = projector_of(w_chat, w_base, method)
        cosines.append(reference.cosine(c, a, b))
        assert layer.cosine == pytest.approx(cosines[-1], abs=COSINE_TOLERANCE)
        change = c if layer.decision == "projected" else torch.eye(len(c), dtype=torch.float64)
        final = change @ b.double()
        error = torch.linalg.norm(own(after, module.lora_b).double() - final)
        assert error <= B_TOLERANCE * torch.linalg.norm(final)
        if layer.decision == "kept":
            assert torch.equal(own(after, module.lora_b), b)
        assert torch.equal(own(after, module.lora_a), a)
        weight = dense(chat, module.name) + module.scaling * final @ a.double()
        if module.magnitude:
            m = before[module.magnitude.name].double()
            if layer.decision == "projected":
                m = torch.linalg.norm(w_chat, dim=1)
            weight = weight * (m / torch.linalg.norm(weight, dim=1))[:, None]
        if module.bias:
            bias = change @ before[module.bias.name].double()
            found.added[f"{module.name}.bias"] = module.scaling * bias
        found.weights[module.name] = weight
    picked = {i for i, layer in enumerate(report.layers) if layer.decision == "projected"}
    assert picked == reference.selected(cosines, method.select)
    return found


def apply_full_weights(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Put an adapter's full weights into the model, by hand."""
    tensors, said = (
        load_file(adapter / WEIGHTS_FILE),
        json.loads((adapter / CONFIG_FILE).read_text()),
    )
    for weight in read_manifest(adapter).full_weights:
        value, parameter = tensors[weight.entry.name], model.get_parameter(weight.name)
        tokens = said["trainable_token_indices"]
        with torch.no_grad():
            if weight.feature != "trainable_token_indices":
                parameter.copy_(value)
            else:
                layer = weight.name.split(".")[-2]
                rows = tokens if isinstance(tokens, list) else tokens[layer]
                parameter[rows] = value
    return model


# -------------------------------------------------------------------------------------------- tests
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


@pytest.mark.parametrize("row", FULL_WEIGHTS, ids=str)
def test_full_weights_that_are_dropped_leave_the_chat_models_own(row: Row, tmp_path: Path) -> None:
    world, out = row.world(tmp_path), tmp_path / "out"
    kept = read_manifest(world.adapter).full_weights
    assert kept
    method = replace(METHOD, full_weights="drop")
    report = patched(world, out, method)
    assert report.verdict == "patched"
    assert [(part.name, part.decision) for part in report.unscreened] == [
        (weight.name, "dropped") for weight in kept
    ]
    assert any("were dropped from the adapter" in warning for warning in report.warnings)
    assert read_manifest(out).full_weights == ()
    wanted = expected(world, report, out, method)
    loaded = PeftModel.from_pretrained(untie(load(world, world.chat)), str(out))
    by_hand = set_by_hand(untie(load(world, world.chat)), wanted.weights)
    assert close(logits(loaded), logits(by_hand))


@pytest.mark.parametrize("row", FULL_WEIGHTS, ids=str)
def test_full_weights_that_are_kept_are_named_and_never_patched(row: Row, tmp_path: Path) -> None:
    world, out = row.world(tmp_path), tmp_path / "out"
    report = patched(world, out)
    names = [weight.name for weight in read_manifest(world.adapter).full_weights]
    assert [(part.name, part.decision) for part in report.unscreened] == [
        (name, "kept") for name in names
    ]
    assert any(names[0] in w and "not screened" in w for w in report.warnings)
    assert report.verdict == "review"
    before, after = (load_file(f / WEIGHTS_FILE) for f in (world.adapter, out))
    assert before.keys() == after.keys()
    for weight in read_manifest(world.adapter).full_weights:
        assert torch.equal(before[weight.entry.name], after[weight.entry.name])


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
