"""A Llama-shaped model and a data set, the same in every process that makes them.

Random weights alone would give flat spectra, in which no direction leads. Here token ids follow
Zipf's law and channel k of the embeddings is 1/k as large as the first, so singular values decay
as a power of their number through all layers. That is a stand-in, not a trained model.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from workers.encoding import Encoded, EncodedSet
from workers.language_models import find_targets

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 384, 1024, 6, 6, 2, 8192
PROMPT, RESPONSE = 8, 48  # tokens of a row; a short prompt spares the side that sweeps more often
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        vocab_size=VOCABULARY,
    )
    model = LlamaForCausalLM(config).requires_grad_(False).eval()
    model.model.embed_tokens.weight.normal_().div_(torch.arange(1, HIDDEN + 1))
    return model


def data(rows: int) -> EncodedSet:
    length = PROMPT + RESPONSE
    chances = 1 / torch.arange(1, VOCABULARY + 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    ids = torch.multinomial(chances, rows * length, replacement=True, generator=generator)
    response = [False] * PROMPT + [True] * RESPONSE
    made = [Encoded(i, row.tolist(), response) for i, row in enumerate(ids.split(length), 1)]
    return EncodedSet(made, template=False, shortened=0)


def targets(
    model: PreTrainedModel, kinds: list[str], layers: Sequence[int] = range(LAYERS)
) -> dict[str, nn.Module]:
    found = find_targets(model, kinds)
    return {name: module for name, module in found.items() if int(name.split(".")[2]) in layers}
