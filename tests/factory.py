"""Real tiny models made on the spot with transformers, and adapters made with PEFT."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SiglipVisionConfig,
)

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2))


def qwen2() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, intermediate_size=48, num_key_value_heads=2))


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    )


# ------------------------------------------------------------------------- more architectures
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GROUPED = {**SIZES, **TOKENS, "intermediate_size": 48, "num_key_value_heads": 2}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**GROUPED))


def tied_qwen2() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**GROUPED, tie_word_embeddings=True))


def qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=8))


def gemma2() -> PreTrainedModel:
    return Gemma2ForCausalLM(Gemma2Config(**GROUPED, head_dim=8))


def gemma3_text() -> PreTrainedModel:
    return Gemma3ForCausalLM(Gemma3TextConfig(**GROUPED, head_dim=8))


def phi3() -> PreTrainedModel:
    return Phi3ForCausalLM(Phi3Config(**GROUPED, max_position_embeddings=64))


def opt() -> PreTrainedModel:
    """With `project_in` and `project_out`, because its embedding is narrower than its layers."""
    sizes = {"ffn_dim": 48, "max_position_embeddings": 32, "word_embed_proj_dim": 24}
    return OPTForCausalLM(OPTConfig(**SIZES, **TOKENS, **sizes))


def gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **TOKENS, intermediate_size=48))


def falcon() -> PreTrainedModel:
    return FalconForCausalLM(FalconConfig(**SIZES, **TOKENS))


def mixtral() -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(**GROUPED, num_local_experts=2))


def qwen3_moe() -> PreTrainedModel:
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**GROUPED, head_dim=8, **experts))


def llava() -> PreTrainedModel:
    text = LlamaConfig(**GROUPED)
    vision = CLIPVisionConfig(**VISION, projection_dim=16)
    return LlavaForConditionalGeneration(
        LlavaConfig(text_config=text, vision_config=vision, image_token_index=63)
    )


def paligemma() -> PreTrainedModel:
    text = GemmaConfig(**GROUPED, head_dim=8)
    vision = SiglipVisionConfig(**VISION, vision_use_head=False)
    config = PaliGemmaConfig(
        text_config=text, vision_config=vision, projection_dim=32, image_token_index=63
    )
    return PaliGemmaForConditionalGeneration(config)


def gemma3() -> PreTrainedModel:
    text = Gemma3TextConfig(**GROUPED, head_dim=8)
    vision = SiglipVisionConfig(**VISION, vision_use_head=False)
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=63
    )
    return Gemma3ForConditionalGeneration(config)


ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}
QWEN_TEXT = {**GROUPED, "rope_parameters": ROPE}


def qwen2_vl() -> PreTrainedModel:
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    config = Qwen2VLConfig(text_config=QWEN_TEXT, vision_config=vision)
    return Qwen2VLForConditionalGeneration(config)


def qwen2_5_vl() -> PreTrainedModel:
    vision = {"depth": 1, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2}
    config = Qwen2_5_VLConfig(
        text_config=QWEN_TEXT,
        vision_config={**vision, "intermediate_size": 16, "fullatt_block_indexes": [0]},
    )
    return Qwen2_5_VLForConditionalGeneration(config)


TARGETS = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "qwen2": ["q_proj", "k_proj", "up_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
}
MAKERS = {
    "llama": llama,
    "qwen2": qwen2,
    "gpt2": gpt2,
    "mistral": mistral,
    "tied qwen2": tied_qwen2,
    "qwen3": qwen3,
    "gemma2": gemma2,
    "gemma3_text": gemma3_text,
    "phi3": phi3,
    "opt": opt,
    "gpt_neox": gpt_neox,
    "falcon": falcon,
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
    "llava": llava,
    "paligemma": paligemma,
    "gemma3": gemma3,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
}


@dataclass(frozen=True)
class World:
    """Folders of a base model, a chat model some percent away, and the chat model's adapter."""

    base: Path
    chat: Path
    adapter: Path
    architecture: str

    def chat_model(self) -> PreTrainedModel:
        """In float32, whatever the checkpoint's dtype."""
        kind = type(MAKERS[self.architecture]())
        return kind.from_pretrained(self.chat, dtype=torch.float32)


def make_world(
    folder: Path,
    architecture: str = "llama",
    *,
    base_dtype: torch.dtype = torch.float32,
    chat_dtype: torch.dtype = torch.float32,
    shard_size: str = "5GB",
    adapter_dtype: torch.dtype = torch.float32,
    **config: object,
) -> World:
    """Save base (random weights), chat (changed by a tenth) and an adapter with a random B."""
    torch.manual_seed(7)
    model = MAKERS[architecture]()
    base, chat, adapter = folder / "base", folder / "chat", folder / "adapter"
    model.to(base_dtype).save_pretrained(base, max_shard_size=shard_size)
    perturb(model.to(torch.float32), 0.1)
    model.to(chat_dtype).save_pretrained(chat, max_shard_size=shard_size)
    save_adapter(model.to(torch.float32), adapter, architecture, adapter_dtype, **config)
    return World(base, chat, adapter, architecture)


def save_adapter(
    model: PreTrainedModel,
    folder: Path,
    architecture: str,
    dtype: torch.dtype = torch.float32,
    *,
    save_embedding_layers: bool | str = False,
    **config: object,
) -> None:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS.get(architecture), **config}
    settings.setdefault("task_type", "CAUSAL_LM")
    settings.setdefault("fan_in_fan_out", architecture == "gpt2")
    model.name_or_path = "org/chat"
    tuned = get_peft_model(model, LoraConfig(**settings), autocast_adapter_dtype=False)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = (torch.randn_like(parameter) * 0.1).to(dtype)
        elif parameter.requires_grad:  # full weights, as training would move them
            parameter.data += 0.05 * torch.randn_like(parameter)
    tuned.save_pretrained(str(folder), save_embedding_layers=save_embedding_layers)
    tuned.unload()


def perturb(model: nn.Module, share: float) -> None:
    """Move every weight matrix (and stack of them) by `share` of its own size, at random."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter += share * parameter.std() * torch.randn_like(parameter)


def dense_weight(tensors: dict[str, Tensor], module: str, architecture: str) -> Tensor:
    """The module's weight as `(d_out, d_in)`, in its own dtype."""
    weight = tensors[f"{module}.weight"]
    return weight.T if architecture == "gpt2" and module.split(".")[-1] != "lm_head" else weight
