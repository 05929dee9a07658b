"""PEFT 0.21's `LoraConfig` as tables: what each field may hold, what we refuse, what we drop.

Source: `peft/config.py` (PeftConfigMixin) and `peft/tuners/lora/config.py` of PEFT 0.21.2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.intake.limits import UPLOAD_LIMITS

Check = Callable[[object], str | None]
"""Takes a field's value; says what is wrong with it, or None."""

MAX_PATTERN_CHARS = 65_536  # because "all layers as one regex" strings are long; we never run them
MAX_LISTED = 50_000  # because a list may name every module, and Limits.tensors bounds those
TASK_TYPES = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS",
              "FEATURE_EXTRACTION")  # fmt: skip


@dataclass(frozen=True)
class Unsupported:
    """A field that changes what the adapter means when it holds anything but `neutral`."""

    feature: str
    neutral: tuple[object, ...]
    hint: str

    def is_set(self, value: object) -> bool:
        return not any(type(value) is type(idle) and value == idle for idle in self.neutral)


def _is_text(value: object, most: int = UPLOAD_LIMITS.name_chars) -> bool:
    return isinstance(value, str) and len(value) <= most and value.isprintable()


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MAX_LISTED and all(map(_is_text, value))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= 10**6


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _text_or_null(value: object) -> str | None:
    if value is None or _is_text(value):
        return None
    return f"must be null or printable text of at most {UPLOAD_LIMITS.name_chars} characters"


def _modules_or_pattern(value: object) -> str | None:
    if value is None or _is_texts(value) or _is_text(value, MAX_PATTERN_CHARS):
        return None
    return "must be null, a string or a list of names"


def _layers(value: object) -> str | None:
    listed = value if isinstance(value, list) else [value]
    if value is None or (len(listed) <= MAX_LISTED and all(map(_is_count, listed))):
        return None
    return "must be null, a layer's number or a list of them"


def _share(value: object) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return None
    return "must be a number in [0, 1]"


def _object_or_null(value: object) -> str | None:
    return None if value is None or isinstance(value, dict) else "must be null or an object"


def _task(value: object) -> str | None:
    if value is None or value in TASK_TYPES:
        return None
    return f"must be null or one of {', '.join(TASK_TYPES)}"


def _group(value: object) -> str | None:
    return None if _is_count(value) else "must be a whole number"


PASSIVE: Mapping[str, Check] = {
    "task_type": _task,
    "peft_version": _text_or_null,
    "base_model_name_or_path": _text_or_null,  # a path or Hub id: shown, never opened
    "revision": _text_or_null,
    "inference_mode": _flag,
    "target_modules": _modules_or_pattern,  # a regex when a string; the tensors' names decide
    "exclude_modules": _modules_or_pattern,
    "lora_dropout": _share,
    "layers_to_transform": _layers,
    "layers_pattern": _modules_or_pattern,
    "eva_config": _object_or_null,
    "qalora_group_size": _group,
}
"""Fields that do not change what the stored tensors mean: checked for their type and kept."""

ACTIVE = ("peft_type", "r", "lora_alpha", "use_rslora", "fan_in_fan_out", "rank_pattern",
          "alpha_pattern", "use_dora", "lora_bias", "bias", "modules_to_save",
          "trainable_token_indices", "target_parameters")  # fmt: skip
"""Fields that we act on; `lora_config` reads them."""

NEUTRALISED: Mapping[str, tuple[object, ...]] = {
    "auto_mapping": (None,),  # `parent_library` reaches importlib.import_module in PEFT
    "megatron_core": (None, "megatron.core"),  # likewise, and means nothing without Megatron
    # PEFT makes a LoRA for every target, also for one without tensors in the file, which nobody
    # screened: with these it starts as a zero update, with False as a random one
    "init_lora_weights": (None, True, "gaussian", "eva"),
}
"""Fields that PEFT acts on when it loads: kept at these harmless values, dropped at any other."""

_PLAIN_LORA = "retrain as plain LoRA, or merge it and extract a plain LoRA adapter"
_BASE_CHANGED = (
    "its base weights were changed; convert it with save_pretrained(folder, "
    "path_initial_model_for_weight_conversion=the untrained adapter's folder) to plain LoRA first"
)  # PEFT 0.21: LoraModel's conversion, for PiSSA, CorDA, OLoRA and LoRA-GA alone
_NO_WAY_BACK = "PEFT has no conversion for it; merge it, and extract a plain LoRA adapter"
_NULL = (None,)
_OFF = (None, False)

UNSUPPORTED: Mapping[str, Unsupported] = {
    "layer_replication": Unsupported(
        "layer replication", (None, []), "train on the model's own layers"
    ),
    "ensure_weight_tying": Unsupported("tied LoRA weights", _OFF, _PLAIN_LORA),
    "megatron_config": Unsupported("Megatron", _NULL, _PLAIN_LORA),
    "alora_invocation_tokens": Unsupported("aLoRA", _NULL, _PLAIN_LORA),
    "use_qalora": Unsupported("QALoRA", _OFF, _PLAIN_LORA),
    "use_bdlora": Unsupported("BD-LoRA", _OFF, _PLAIN_LORA),
    "arrow_config": Unsupported("Arrow", _NULL, _PLAIN_LORA),
    "kasa_config": Unsupported("KaSA", _NULL, _PLAIN_LORA),
    "velora_config": Unsupported("VeLoRA", _NULL, _PLAIN_LORA),
    "monteclora_config": Unsupported("MonteCLoRA", _NULL, _PLAIN_LORA),
    "corda_config": Unsupported("CorDA", _NULL, _BASE_CHANGED),
    "lora_ga_config": Unsupported("LoRA-GA", _NULL, _BASE_CHANGED),
    "loftq_config": Unsupported("LoftQ", (None, {}), _NO_WAY_BACK),
    "init_lora_weights": Unsupported(
        "an initialisation that may change the base weights",
        (None, True, False, "gaussian", "eva", "orthogonal"),
        _BASE_CHANGED,
    ),
}
"""Fields that make the adapter another kind than plain LoRA unless they hold a neutral value."""

INITIALISATIONS: Mapping[str, tuple[str, str]] = {
    "pissa": ("PiSSA", _BASE_CHANGED),
    "olora": ("OLoRA", _BASE_CHANGED),
    "corda": ("CorDA", _BASE_CHANGED),
    "lora_ga": ("LoRA-GA", _BASE_CHANGED),
    "loftq": ("LoftQ", _NO_WAY_BACK),
    "mica": ("MiCA", _NO_WAY_BACK),
}
"""Values of `init_lora_weights` that are refused, by how they begin: (feature, hint)."""


def initialisation(value: object) -> tuple[str, str] | None:
    """Feature and hint of an initialisation that we know by name, e.g. of `pissa_niter_16`."""
    if not isinstance(value, str):
        return None
    named = (said for start, said in INITIALISATIONS.items() if value.lower().startswith(start))
    return next(named, None)


KNOWN = frozenset({*PASSIVE, *ACTIVE, *UNSUPPORTED, *NEUTRALISED})
