"""Real tiny models made on the spot with transformers, and adapters made with PEFT."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
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


TARGETS = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "qwen2": ["q_proj", "k_proj", "up_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
}
MAKERS = {"llama": llama, "qwen2": qwen2, "gpt2": gpt2}


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
    **config: object,
) -> None:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS[architecture], **config}
    settings.setdefault("task_type", "CAUSAL_LM")
    settings.setdefault("fan_in_fan_out", architecture == "gpt2")
    model.name_or_path = "org/chat"
    tuned = get_peft_model(model, LoraConfig(**settings), autocast_adapter_dtype=False)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = (torch.randn_like(parameter) * 0.1).to(dtype)
    tuned.save_pretrained(str(folder), save_embedding_layers=False)
    tuned.unload()


def perturb(model: nn.Module, share: float) -> None:
    """Move every weight matrix by `share` of its own size, in a random direction."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter += share * parameter.std() * torch.randn_like(parameter)


def dense_weight(tensors: dict[str, Tensor], module: str, architecture: str) -> Tensor:
    """The module's weight as `(d_out, d_in)` float64."""
    weight = tensors[f"{module}.weight"].double()
    return weight.T if architecture == "gpt2" and module.split(".")[-1] != "lm_head" else weight
