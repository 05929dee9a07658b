"""Facts about model architectures that a checkpoint's bytes do not tell: transformers 5 as tables.

`tests/workers/test_breadth.py` holds each row against transformers itself.

transformers' `Conv1D` (GPT-2 and its relatives) stores its weight as `(d_in, d_out)`, the other way
round from `nn.Linear`. A square weight does not show which it is, so the module's name decides.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

CONV1D_MODULES: Mapping[str, frozenset[str]] = {
    "gpt2": frozenset({"c_attn", "c_proj", "c_fc", "q_attn"}),
    "openai-gpt": frozenset({"c_attn", "c_proj", "c_fc"}),
    "imagegpt": frozenset({"c_attn", "c_proj", "c_fc", "q_attn"}),
    "decision_transformer": frozenset({"c_attn", "c_proj", "c_fc", "q_attn"}),
}

BASE_MODEL_PREFIX: Mapping[str, str] = {
    "bloom": "transformer",
    "falcon": "transformer",
    "gemma": "model",
    "gemma2": "model",
    "gemma3_text": "model",
    "gpt2": "transformer",
    "gpt_bigcode": "transformer",
    "gpt_neox": "gpt_neox",
    "gptj": "transformer",
    "llama": "model",
    "mistral": "model",
    "mixtral": "model",
    "openai-gpt": "transformer",
    "opt": "model",
    "phi": "model",
    "phi3": "model",
    "qwen2": "model",
    "qwen3": "model",
    "qwen3_moe": "model",
}
"""transformers' `base_model_prefix` by model type: what a model with a head puts before the names
of the model without one. A checkpoint may have been saved from either (the original GPT-2 was saved
without), and transformers loads it into both.
"""

_LLAVA = (
    ("lm_head", "language_model.lm_head"),
    ("model.language_model", "language_model.model"),
    ("model.multi_modal_projector", "multi_modal_projector"),
    ("model.vision_tower", "vision_tower"),
    ("model.vision_tower", "vision_tower.vision_model"),  # CLIP and SigLIP before transformers 5
)
_QWEN_VL = (("model.language_model", "model"), ("model.visual", "visual"))

STORED_AS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "gemma3": _LLAVA,
    "gpt_neox": (("lm_head", "embed_out"),),
    "llava": _LLAVA,
    "paligemma": _LLAVA,
    "qwen2_5_vl": _QWEN_VL,
    "qwen2_vl": _QWEN_VL,
}
"""Where transformers saves parts of a model under other names than its modules have, by model type:
(start of the module's name, start of the checkpoint's name).

Source: `transformers/conversion_mapping.py` of 5.23 (before version 5 a model class had it as
`_checkpoint_conversion_mapping`). Only prefixes: a type whose conversion merges or splits tensors
has no row, and its converted modules are not found.
"""

EXPERTS, ROUTER = "experts", "gate"
EXPERT_PARAMETERS = ("gate_up_proj", "down_proj")
"""The 3-D parameters `(E, d_out, d_in)` of a mixture's experts, in the order in which the
classes of `EXPERT_WEIGHTS` define them."""

EXPERT_WEIGHTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "mixtral": {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)},
    "qwen3_moe": {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)},
}
"""The linear weights, one expert each, as which a checkpoint holds the experts, by model type and
parameter; the rows of several are stacked. Source: `transformers/conversion_mapping.py` of 5.23.
A type without a row may store its experts the other way round, so none of its experts is found.
"""

MIXTURE_AS: Mapping[str, tuple[str, str]] = {"mixtral": (".mlp.", ".block_sparse_moe.")}
"""What transformers 5 renames in the middle of a mixture's names: (ours, the checkpoint's)."""

_EXPERT = re.compile(rf"(.+\.{EXPERTS}\.({'|'.join(EXPERT_PARAMETERS)}))\.(0|[1-9][0-9]{{0,5}})")


class Expert(NamedTuple):
    """One expert of a 3-D parameter; its module's name is `<parameter>.<index>`."""

    parameter: str  # e.g. "model.layers.0.mlp.experts.down_proj"
    kind: str  # one of EXPERT_PARAMETERS
    number: int

    @property
    def container(self) -> str:
        return self.parameter.removesuffix(f".{self.kind}")


def expert_of(module: str) -> Expert | None:
    """The expert that a module's name means; None of an ordinary module's name."""
    found = _EXPERT.fullmatch(module)
    return Expert(found[1], found[2], int(found[3])) if found else None


def expert_weights(model_type: str | None, expert: Expert) -> tuple[str, ...]:
    """The names of the 2-D tensors whose rows, stacked, are the expert's weight."""
    parts = EXPERT_WEIGHTS.get(model_type or "", {}).get(expert.kind, ())
    ours, stored = MIXTURE_AS.get(model_type or "", ("", ""))
    container = expert.container.replace(ours, stored) if ours else expert.container
    return tuple(f"{container}.{expert.number}.{part}.weight" for part in parts)


OUTPUT_HEAD = "lm_head"

TIED_EMBEDDING: Mapping[str, str] = {
    "bloom": "transformer.word_embeddings",
    "falcon": "transformer.word_embeddings",
    "gemma": "model.embed_tokens",
    "gemma2": "model.embed_tokens",
    "gemma3": "model.language_model.embed_tokens",
    "gemma3_text": "model.embed_tokens",
    "gpt2": "transformer.wte",
    "gpt_bigcode": "transformer.wte",
    "gpt_neox": "gpt_neox.embed_in",
    "gptj": "transformer.wte",
    "llama": "model.embed_tokens",
    "llava": "model.language_model.embed_tokens",
    "mistral": "model.embed_tokens",
    "mixtral": "model.embed_tokens",
    "openai-gpt": "transformer.tokens_embed",
    "opt": "model.decoder.embed_tokens",
    "paligemma": "model.language_model.embed_tokens",
    "phi": "model.embed_tokens",
    "phi3": "model.embed_tokens",
    "qwen2": "model.embed_tokens",
    "qwen2_5_vl": "model.language_model.embed_tokens",
    "qwen2_vl": "model.language_model.embed_tokens",
    "qwen3": "model.embed_tokens",
    "qwen3_moe": "model.embed_tokens",
}
"""The embedding whose weight the output head shares when the model ties them, by model type
(transformers' `_tied_weights_keys`). A tied checkpoint has no tensor of the head's own.
"""

TIED_BY_DEFAULT = frozenset({
    "bloom", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "gpt_bigcode",
    "openai-gpt", "opt", "paligemma",
})  # fmt: skip
"""Model types that tie them where config.json does not say (GPT-2's on the Hub does not)."""


EMBEDDINGS = frozenset({name.rsplit(".", 1)[-1] for name in TIED_EMBEDDING.values()}) | {
    "embed_positions",
    "position_embedding",
    "positions_embed",
    "wpe",
}
"""The last part of embeddings' names, of tokens and of positions."""


def stored_names(model_type: str | None, module: str) -> Iterator[str]:
    """The names under which a checkpoint of `model_type` may hold `module`, beside its own."""
    for ours, theirs in STORED_AS.get(model_type or "", ()):
        if f"{module}.".startswith(f"{ours}."):
            yield theirs + module.removeprefix(ours)
    ours, theirs = MIXTURE_AS.get(model_type or "", ("", ""))
    if ours and ours in module:
        yield module.replace(ours, theirs)


def tied_embedding(model_type: str | None, module: str, tied: bool | None) -> str | None:
    """The embedding whose weight `module` shares; None where it has a weight of its own.

    `tied` is what config.json says, None where it says nothing.
    """
    if tied is None:
        tied = model_type in TIED_BY_DEFAULT
    return TIED_EMBEDDING.get(model_type or "") if tied and module == OUTPUT_HEAD else None


def is_output_head(module: str) -> bool:
    """Whether a linear module's rows are tokens (GPT-NeoX called it `embed_out` once)."""
    return module.rsplit(".", 1)[-1] in (OUTPUT_HEAD, "embed_out")


def is_embedding(module: str) -> bool:
    """Whether a module is an embedding; a checkpoint's bytes do not tell it from a linear."""
    return module.rsplit(".", 1)[-1] in EMBEDDINGS


def is_stored_transposed(model_type: str | None, module: str) -> bool:
    """Whether the weight of `module` is stored `(d_in, d_out)` in a checkpoint of `model_type`."""
    return module.rsplit(".", 1)[-1] in CONV1D_MODULES.get(model_type or "", frozenset())
