"""A tiny base model, a chat model a few training steps away, and a LoRA trained on the chat model.

Everything is trained here, on made-up token sequences, in seconds: the base model learns to count,
the chat model learns to answer a "forbidden" token with a refusal token, and the adapter learns a
task of its own. The numbers in the demo's report are real, but they say nothing about real models.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

VOCABULARY = 128
FORBIDDEN, REFUSAL = 126, 127
LENGTH = 16
BATCH = 16


@dataclass(frozen=True)
class World:
    """Folders of the demo's models and adapter."""

    base: Path
    chat: Path
    adapter: Path


def make_world(models: Path, adapter: Path) -> World:
    """Train and save base and chat under `models`, and the adapter in `adapter`."""
    be_quiet()
    torch.manual_seed(0)
    base, chat = models / "base", models / "chat"
    model = LlamaForCausalLM(_config())
    _train(model, _counting, steps=30)
    model.save_pretrained(base)
    _train(model, _refusing, steps=15)
    model.save_pretrained(chat)
    model.name_or_path = "demo/chat"
    tuned = get_peft_model(model, _lora())
    _train(tuned, _doubling, steps=15)
    tuned.save_pretrained(str(adapter), save_embedding_layers=False)
    return World(base, chat, adapter)


def be_quiet() -> None:
    """The demo says what it does; the libraries' progress bars and hints would only hide it."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call] # because transformers has none
    logging.set_verbosity_error()  # type: ignore[no-untyped-call] # likewise
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )


def _lora() -> LoraConfig:
    return LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj", "down_proj"],
        task_type="CAUSAL_LM",
    )


def _train(model: nn.Module, make_batch: Callable[[], Tensor], *, steps: int) -> None:
    """Plain AdamW on next-token loss over the parameters that train."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=3e-3)
    model.train()
    for _ in range(steps):
        tokens = make_batch()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def _counting() -> Tensor:
    """Sequences that count upwards, `(BATCH, LENGTH)`."""
    start = torch.randint(0, 64, (BATCH, 1))
    return (start + torch.arange(LENGTH)) % 120


def _refusing() -> Tensor:
    """Counting, until a forbidden token comes: refusals follow."""
    tokens = _counting()
    tokens[::2, 4] = FORBIDDEN
    tokens[::2, 5:] = REFUSAL
    return tokens


def _doubling() -> Tensor:
    """The adapter's task: counting by two."""
    start = torch.randint(0, 64, (BATCH, 1))
    return (start + 2 * torch.arange(LENGTH)) % 120
