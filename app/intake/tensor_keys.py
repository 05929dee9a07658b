"""Tensor names: `base_model.model.<module>.lora_A.weight` is ours, the others have a name too.

`.lora_A.default.weight` is read as well, because `PeftModel.from_pretrained` of PEFT 0.21 loads it
for every architecture tried. It loads no other adapter's name (only a warning says so), and keys
without the prefix only for the few architectures whose keys transformers converts: these stay
refused, because a patched folder has to load.
"""

import re
from typing import Literal, NamedTuple

from app.domain.adapter import WEIGHTS_FILE
from app.domain.errors import TensorRefused, UnsupportedAdapter

Side = Literal["A", "B"]

PREFIX = "base_model.model."
_OURS = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?P<named>\.default)?\.weight"
)

_PEFT = "save it again with PEFT's model.save_pretrained(folder)"
_UNEMBEDDED = "save it with model.save_pretrained(folder, save_embedding_layers=False)"
_CONVERT = "convert it to PEFT's format first"
_PLAIN = "train plain LoRA on linear modules"
_FULL = "it holds weights that a LoRA projection never touches; train without them"

FOREIGN: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"\.lora_magnitude_vector\b"), "DoRA", _PLAIN),
    (re.compile(r"\.lora_embedding_[AB]\b"), "LoRA on an embedding", _PLAIN),
    (re.compile(r"\.modules_to_save\b"), "modules_to_save", _FULL),
    (re.compile(r"\.(token_adapter|trainable_tokens_\w+)\b"), "trainable tokens", _FULL),
    (re.compile(r"\.lora_[AB]\.bias$"), "a bias on lora_B", _FULL),
    (re.compile(r"\.lora_diag\b"), "KaSA", _PLAIN),
    (re.compile(r"^(base_model\.model\.){2}"), "a PEFT model wrapped in another", _PEFT),
    (re.compile(r"(^|\.)base_layer\."), "a full weight beside a LoRA (base_layer)", _UNEMBEDDED),
    (
        re.compile(r"\.lora_[AB]\.(?!default\.)[^.]+\.weight$"),
        "a key with the adapter's name in it",
        _PEFT,
    ),
    (re.compile(r"^lora_(unet|te\d?|transformer|llm)_"), "kohya's format", _CONVERT),
    (re.compile(r"\.lora_(up|down|mid)\.weight$|\.alpha$"), "kohya's format", _CONVERT),
    (re.compile(r"\.(lora|lora_linear_layer)\.(up|down)\.weight$"), "diffusers' format", _CONVERT),
    (re.compile(r"\.lora_(up|down)$"), "diffusers' format", _CONVERT),
    (
        re.compile(r"^(?!base_model\.model\.).*\.lora_[AB](\.default)?\.weight$"),
        "a key without PEFT's base_model.model. prefix",
        _PEFT,
    ),
    (re.compile(r"^(?!.*\blora_)(?=.*\.(weight|bias)$)"), "a full weight", _FULL),
)
"""What other spellings mean, first match counts: (pattern, feature, hint)."""


class TensorKey(NamedTuple):
    module: str  # e.g. "model.layers.0.self_attn.q_proj"
    side: Side
    is_named: bool  # whether the key has PEFT's default adapter name in it


def parse_key(name: str) -> TensorKey:
    """The module and side that a tensor's name says.

    Raises UnsupportedAdapter naming the tensor and the format it is of, else TensorRefused.
    """
    for pattern, feature, hint in FOREIGN:
        if pattern.search(name):
            where = f"{WEIGHTS_FILE}, tensor {name}"
            raise UnsupportedAdapter(feature=feature, where=where, hint=hint)
    ours = _OURS.fullmatch(name)
    if ours is None:
        reason = f"it is not named {PREFIX}<module>.lora_A.weight or .lora_B.weight"
        raise TensorRefused(tensor=name, reason=reason)
    return TensorKey(ours["module"], "A" if ours["side"] == "A" else "B", bool(ours["named"]))


def check_spelling(name: str, key: TensorKey, first: TensorKey) -> None:
    """A file's keys are all spelled like its first one. Raises UnsupportedAdapter."""
    if key.is_named != first.is_named:
        where = f"{WEIGHTS_FILE}, tensor {name}"
        feature = "keys with the adapter's name beside keys without it"
        raise UnsupportedAdapter(feature=feature, where=where, hint=_PEFT)
