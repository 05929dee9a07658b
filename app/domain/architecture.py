"""Facts about model architectures that a checkpoint's bytes do not tell.

transformers' `Conv1D` (GPT-2 and its relatives) stores its weight as `(d_in, d_out)`, the other way
round from `nn.Linear`. A square weight does not show which it is, so the module's name decides.
"""

from collections.abc import Mapping

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
}
"""transformers' `base_model_prefix` by model type: what a model with a head puts before the names
of the model without one. A checkpoint may have been saved from either (the original GPT-2 was saved
without), and transformers loads it into both.
"""


def is_stored_transposed(model_type: str | None, module: str) -> bool:
    """Whether the weight of `module` is stored `(d_in, d_out)` in a checkpoint of `model_type`."""
    return module.rsplit(".", 1)[-1] in CONV1D_MODULES.get(model_type or "", frozenset())
