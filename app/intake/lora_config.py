"""`adapter_config.json`, read without PEFT: reading it with PEFT imports modules by name."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from app.domain.adapter import CONFIG_FILE
from app.domain.errors import ConfigRefused, TooLarge, UnsupportedAdapter
from app.intake.limits import UPLOAD_LIMITS, Limits
from app.intake.lora_fields import KNOWN, NEUTRALISED, PASSIVE, UNSUPPORTED, initialisation
from app.intake.names import shown
from app.intake.parameters import check_targets
from app.intake.strict_json import parse_json

BIASES = ("none", "all", "lora_only")
DEFAULT_EMBEDDING = "embed_tokens"  # PEFT's, where trainable_token_indices is a list
MAX_LAYERS = 100  # that are saved whole or have trained tokens; real ones are a head or two
MAX_TOKENS = 50_000  # because a tokenizer gets a few hundred new tokens, seldom thousands
MAX_TOKEN = 10**7  # because the largest vocabularies have a few hundred thousand
MIN_ALPHA = 1e-6  # because smaller is no adapter, and alpha / r must not round to zero


@dataclass(frozen=True)
class LoraConfig:
    """A plain LoRA configuration, and the JSON object that we write back for it."""

    r: int
    lora_alpha: float
    use_rslora: bool
    fan_in_fan_out: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base_model_name: str | None
    clean: dict[str, object]  # known keys with their values as they came, in the order they came
    dropped_keys: tuple[str, ...]  # in the order they came
    use_dora: bool = False
    lora_bias: bool = False
    bias: str = "none"  # "all" and "lora_only" put the model's own biases into the file
    modules_to_save: tuple[str, ...] = ()  # names, or ends of names, of whole modules
    tokens: Mapping[str, tuple[int, ...]] = dataclasses.field(
        default_factory=dict
    )  # by name, or its end
    target_parameters: tuple[str, ...] = ()  # names, or ends of names, of parameters


MAX_KEY_CHARS = 64  # of a key that we drop and name; the longest known one has 23


def parse_config(raw: bytes, limits: Limits = UPLOAD_LIMITS) -> LoraConfig:
    """Check a configuration and keep what we know.

    Raises TooLarge, ConfigRefused naming the field, UnsupportedAdapter for other kinds than LoRA.
    """
    said = _parse(raw, limits)
    _check_kind(said)
    for field, check in PASSIVE.items():
        if field in said and (fault := check(said[field])):
            _refuse(field, fault)
    clean = {key: value for key, value in said.items() if _is_kept(key, value)}
    base = said.get("base_model_name_or_path")
    return LoraConfig(
        r=_rank(_required(said, "r"), "r", limits),
        lora_alpha=_alpha(_required(said, "lora_alpha"), "lora_alpha", limits),
        use_rslora=_flag(said, "use_rslora"),
        fan_in_fan_out=_flag(said, "fan_in_fan_out"),
        rank_pattern=_ranks(said, limits),
        alpha_pattern=_alphas(said, limits),
        base_model_name=base if isinstance(base, str) else None,
        clean=clean,
        use_dora=_flag(said, "use_dora"),
        lora_bias=_flag(said, "lora_bias"),
        bias=_bias(said),
        modules_to_save=_names(said, "modules_to_save", limits),
        tokens=_tokens(said, limits),
        target_parameters=_parameters(said, limits),
        dropped_keys=tuple(shown(key)[:MAX_KEY_CHARS] for key in said if key not in clean),
    )


def _parse(raw: bytes, limits: Limits) -> dict[str, object]:
    if len(raw) > limits.config_bytes:
        raise TooLarge(what=CONFIG_FILE, limit_bytes=limits.config_bytes)
    try:
        said = parse_json(raw, depth=limits.json_depth)
    except ValueError as fault:
        _refuse("(the whole file)", f"not strict JSON: {fault}")
    if not isinstance(said, dict):
        _refuse("(the whole file)", "must be a JSON object")
    return said


def _check_kind(said: Mapping[str, object]) -> None:
    kind = _required(said, "peft_type")
    if not isinstance(kind, str):
        _refuse("peft_type", "must be a string")
    if kind != "LORA":
        _unsupported(f"PEFT type {shown(kind)}", "peft_type", "only plain LoRA is")
    for field, meant in UNSUPPORTED.items():
        if field in said and meant.is_set(said[field]):
            own = initialisation(said[field]) if field == "init_lora_weights" else None
            feature, hint = own or (meant.feature, meant.hint)
            _unsupported(feature, field, hint)


def _is_kept(key: str, value: object) -> bool:
    return key in KNOWN and (key not in NEUTRALISED or value in NEUTRALISED[key])


def _required(said: Mapping[str, object], field: str) -> object:
    if field not in said:
        _refuse(field, "is missing")
    return said[field]


def _flag(said: Mapping[str, object], field: str) -> bool:
    value = said.get(field, False)
    if not isinstance(value, bool):
        _refuse(field, "must be true or false")
    return value


def _bias(said: Mapping[str, object]) -> str:
    value = said.get("bias", "none")
    if value not in BIASES:
        _refuse("bias", f"must be one of {', '.join(BIASES)}")
    return str(value)


def _names(said: Mapping[str, object], field: str, limits: Limits) -> tuple[str, ...]:
    value = said.get(field)
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_LAYERS:
        _refuse(field, f"must be null or a list of at most {MAX_LAYERS} names")
    if not all(isinstance(name, str) and 0 < len(name) <= limits.name_chars for name in value):
        _refuse(field, f"must hold names of 1 to {limits.name_chars} characters")
    return tuple(value)


def _parameters(said: Mapping[str, object], limits: Limits) -> tuple[str, ...]:
    names = _names(said, "target_parameters", limits)
    check_targets(names)
    return names


def _tokens(said: Mapping[str, object], limits: Limits) -> Mapping[str, tuple[int, ...]]:
    """PEFT takes a list, for the layer called `embed_tokens`, or lists by a layer's name."""
    field = "trainable_token_indices"
    value = said.get(field)
    if value is None:
        return {}
    if isinstance(value, list):
        return {DEFAULT_EMBEDDING: _indices(value, field)}
    table = _table(said, field, limits)
    if len(table) > MAX_LAYERS:
        _refuse(field, f"{len(table)} keys are over the limit of {MAX_LAYERS}")
    return {key: _indices(rows, _at(field, key)) for key, rows in table.items()}


def _indices(value: object, field: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_TOKENS:
        _refuse(field, f"must be a list of at most {MAX_TOKENS} token numbers")
    if not all(type(token) is int and 0 <= token <= MAX_TOKEN for token in value):
        _refuse(field, f"must hold whole numbers in [0, {MAX_TOKEN}]")
    if len(set(value)) != len(value):
        _refuse(field, "names a token twice")
    return tuple(value)


def _rank(value: object, field: str, limits: Limits) -> int:
    if type(value) is not int or not 1 <= value <= limits.rank:
        _refuse(field, f"must be a whole number in [1, {limits.rank}]")
    return value


def _alpha(value: object, field: str, limits: Limits) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(field, "must be a number")
    if not MIN_ALPHA <= value <= limits.alpha:
        _refuse(field, f"must lie in [{MIN_ALPHA:g}, {limits.alpha:g}]")
    return float(value)


def _ranks(said: Mapping[str, object], limits: Limits) -> Mapping[str, int]:
    table = _table(said, "rank_pattern", limits)
    return {key: _rank(value, _at("rank_pattern", key), limits) for key, value in table.items()}


def _alphas(said: Mapping[str, object], limits: Limits) -> Mapping[str, float]:
    table = _table(said, "alpha_pattern", limits)
    return {key: _alpha(value, _at("alpha_pattern", key), limits) for key, value in table.items()}


def _table(said: Mapping[str, object], field: str, limits: Limits) -> Mapping[str, object]:
    table = said.get(field)
    if table is None:  # because PEFT's type is Optional[dict]
        return {}
    if not isinstance(table, dict):
        _refuse(field, "must be an object")
    if len(table) > limits.patterns:
        _refuse(field, f"{len(table)} keys are over the limit of {limits.patterns}")
    for key in table:
        if len(key) > limits.name_chars:
            _refuse(field, f"the key {_at(field, key)} is over {limits.name_chars} characters")
    return table


def _at(field: str, key: str) -> str:
    return f"{field}[{shown(key)[:100]}]"


def _refuse(field: str, reason: str) -> NoReturn:
    raise ConfigRefused(field=field, reason=reason)


def _unsupported(feature: str, field: str, hint: str) -> NoReturn:
    raise UnsupportedAdapter(feature=feature, where=f"{CONFIG_FILE}, field {field}", hint=hint)
