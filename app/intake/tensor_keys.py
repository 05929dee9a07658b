"""Tensor names: which part of which module a name says, and what foreign names mean.

`.default` before `.weight` is read as well, because `PeftModel.from_pretrained` of PEFT 0.21 loads
it for every architecture tried. It loads no other adapter's name (only a warning says so), and keys
without the prefix only for the few architectures whose keys transformers converts: these stay
refused, because a patched folder has to load.
"""

import re
from typing import Literal, NamedTuple

from app.domain.adapter import WEIGHTS_FILE
from app.domain.errors import TensorRefused, UnsupportedAdapter

Part = Literal["A", "B", "embedding_A", "embedding_B", "bias", "magnitude", "tokens", "full"]

PREFIX = "base_model.model."
_HEAD = r"base_model\.model\.(?P<module>.+)\."
_OURS: tuple[tuple[re.Pattern[str], Part], ...] = (
    (re.compile(_HEAD + r"lora_A(?P<named>\.default)?\.weight"), "A"),
    (re.compile(_HEAD + r"lora_B(?P<named>\.default)?\.weight"), "B"),
    (re.compile(_HEAD + r"lora_embedding_A(?P<named>\.default)?"), "embedding_A"),
    (re.compile(_HEAD + r"lora_embedding_B(?P<named>\.default)?"), "embedding_B"),
    (re.compile(_HEAD + r"lora_B(?P<named>\.default)?\.bias"), "bias"),
    (re.compile(_HEAD + r"lora_magnitude_vector(?P<named>\.default\.weight)?"), "magnitude"),
    (re.compile(_HEAD + r"token_adapter\.trainable_tokens_delta"), "tokens"),
    (re.compile(_HEAD + r"base_layer\.(weight|bias)"), "full"),
    (re.compile(r"base_model\.model\.(?P<module>(?!.*\b(lora_|modules_to_save|token_adapter)).+)"
                r"\.(weight|bias)"), "full"),
)  # fmt: skip
"""PEFT's own names as `save_pretrained` writes them; the first that matches counts."""

LORA_PARTS = frozenset({"A", "B", "embedding_A", "embedding_B", "bias", "magnitude"})

_PEFT = "save it again with PEFT's model.save_pretrained(folder)"
_CONVERT = "convert it to PEFT's format first"
_PLAIN = "train plain LoRA on linear modules"

FOREIGN: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"\.modules_to_save\."), "modules_to_save under the adapter's name", _PEFT),
    (re.compile(r"\.lora_A\.bias$"), "a bias on lora_A", _PLAIN),
    (re.compile(r"\.lora_diag\b"), "KaSA", _PLAIN),
    (re.compile(r"^(base_model\.model\.){2}"), "a PEFT model wrapped in another", _PEFT),
    (
        re.compile(r"\.lora_[AB]\.(?!default\.)[^.]+\.(weight|bias)$"),
        "a key with the adapter's name in it",
        _PEFT,
    ),
    (re.compile(r"^lora_(unet|te\d?|transformer|llm)_"), "kohya's format", _CONVERT),
    (re.compile(r"\.lora_(up|down|mid)\.weight$|\.alpha$"), "kohya's format", _CONVERT),
    (re.compile(r"\.(lora|lora_linear_layer)\.(up|down)\.weight$"), "diffusers' format", _CONVERT),
    (re.compile(r"\.lora_(up|down)$"), "diffusers' format", _CONVERT),
    (
        re.compile(r"^(?!base_model\.model\.).*\.(lora_[AB](\.default)?\.(weight|bias)"
                   r"|lora_embedding_[AB]|lora_magnitude_vector)$"),
        "a key without PEFT's base_model.model. prefix",
        _PEFT,
    ),
)  # fmt: skip
"""What other spellings mean, first match counts: (pattern, feature, hint)."""


class TensorKey(NamedTuple):
    module: str  # e.g. "model.layers.0.self_attn.q_proj"
    part: Part
    is_named: bool  # whether the key has PEFT's default adapter name in it


def parse_key(name: str) -> TensorKey:
    """The module and part that a tensor's name says.

    Raises UnsupportedAdapter naming the tensor and the format it is of, else TensorRefused.
    """
    for pattern, feature, hint in FOREIGN:
        if pattern.search(name):
            where = f"{WEIGHTS_FILE}, tensor {name}"
            raise UnsupportedAdapter(feature=feature, where=where, hint=hint)
    for pattern, part in _OURS:
        if found := pattern.fullmatch(name):
            return TensorKey(found["module"], part, bool(found.groupdict().get("named")))
    reason = f"it is not named {PREFIX}<module>.lora_A.weight or .lora_B.weight"
    raise TensorRefused(tensor=name, reason=reason)


def check_spelling(name: str, key: TensorKey, first: TensorKey) -> None:
    """A file's keys are all spelled like its first one. Raises UnsupportedAdapter."""
    if key.is_named != first.is_named:
        where = f"{WEIGHTS_FILE}, tensor {name}"
        feature = "keys with the adapter's name beside keys without it"
        raise UnsupportedAdapter(feature=feature, where=where, hint=_PEFT)
