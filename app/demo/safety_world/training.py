"""Plain next-token training of small models, on the CPU."""

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

Tokens = list[int]
IGNORED = -100


def fresh_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """Six layers, 42 linear modules."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def train(
    model: nn.Module,
    texts: Sequence[Tokens],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    batch: int = 64,
) -> float:
    """AdamW with a cosine decay on every token of rows drawn by the seed; the last loss."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)
    draw, loss = random.Random(seed), torch.tensor(0.0)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _share(step, steps)
        loss = _loss(model, draw.choices(texts, k=batch))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    model.eval()
    return float(loss.detach())


def _share(step: int, steps: int) -> float:
    """Of the learning rate: up over the first twentieth, then down to a tenth."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.55 + 0.45 * math.cos(math.pi * (step - warm) / max(1, steps - warm))


def _loss(model: nn.Module, rows: Sequence[Tokens]) -> Tensor:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    labels = torch.tensor([[*row, *[IGNORED] * (longest - len(row))] for row in rows])
    loss: Tensor = model(
        input_ids=ids, attention_mask=(labels != IGNORED).long(), labels=labels
    ).loss
    return loss
