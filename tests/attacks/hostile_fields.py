"""More hostile `adapter_config.json`: what is no strict JSON, and fields with what none holds."""

import gzip
import pickle

from app.domain import errors as e
from app.intake.limits import UPLOAD_LIMITS
from tests.attacks.hostile import Hostile
from tests.intake.files import config_bytes

REFUSED, UNSUPPORTED = e.ConfigRefused, e.UnsupportedAdapter
LONG = "x" * (UPLOAD_LIMITS.name_chars + 1)


def raw(name: str, content: bytes, culprit: str = "the whole file") -> Hostile:
    return Hostile(name, lambda: content, REFUSED, culprit)


def ended(name: str, text: bytes) -> Hostile:
    """The sound configuration with its last brace replaced."""
    return raw(name, config_bytes()[:-1] + text)


def said(field: str, value: object, error: type[e.Refused] = REFUSED, culprit: str = "") -> Hostile:
    what = ascii(value)[:40]
    return Hostile(
        f"{field}: {what}", lambda: config_bytes(**{field: value}), error, culprit or field
    )


ENTITY = b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>"
FIELDS = [
    raw("a byte order mark", b"\xef\xbb\xbf" + config_bytes()),
    raw("UTF-16", config_bytes().decode().encode("utf-16")),
    raw("single quotes", b"{'peft_type': 'LORA'}"),
    raw("two objects", config_bytes() * 2),
    raw("a NUL after the end", config_bytes() + b"\0"),
    raw("gzip", gzip.compress(config_bytes())),
    raw("a pickle", pickle.dumps({"r": 2})),
    raw("YAML that would call", b"r: !!python/object/apply:os.system ['id']"),
    raw("XML with an entity", ENTITY),
    *(raw(f"only {text.decode()}", text) for text in (b'"r"', b"2", b"null", b"true", b"NaN")),
    ended("a comma before the end", b",}"),
    ended("a comment", b', /* x */ "x": 1}'),
    ended("minus infinity", b', "x": -Infinity}'),
    ended("minus zero", b', "x": -0}'),
    ended("a number in hexadecimal", b', "x": 0x10}'),
    ended("a number with a zero before it", b', "x": 010}'),
    ended("a number with a plus", b', "x": +1}'),
    ended("a number without a whole part", b', "x": .5}'),
    ended("a number of 21 digits", b', "x": 100000000000000000000}'),
    ended("a slash in two bytes", b', "x": "\xc0\xaf"}'),
    ended("a surrogate in bytes", b', "x": "\xed\xa0\x80"}'),
    ended("a control character in a string", b', "x": "\x01"}'),
    ended("half a pair of surrogates", b', "x": "\\ude00\\ud83d"}'),
    ended("a key twice, deep inside", b', "rank_pattern": {"q": 2, "q": 64}}'),
    ended("NaN in a pattern", b', "alpha_pattern": {"q": NaN}}'),
    *(said("r", value) for value in (None, -1, 2**63, [8], UPLOAD_LIMITS.rank + 1)),
    *(said("lora_alpha", value) for value in (None, "16", [16], True, 0, 1e-300, 2**64 - 1)),
    *(said("use_rslora", value) for value in ("true", 1, None)),
    said("fan_in_fan_out", "no"),
    said("lora_bias", 1),
    said("use_dora", None),
    *(said("rank_pattern", value) for value in ([1], {"q": True}, {"q": 1.5}, {"q": 0}, {LONG: 1})),
    *(said("alpha_pattern", value) for value in ("q", {"q": "1"}, {"q": 1e9}, {"q": None})),
    *(said("base_model_name_or_path", value) for value in ("a\0b", ["a"], LONG, "\x1b[2J")),
    *(said("revision", value) for value in ("a\u202eb", 7)),
    *(said("target_modules", value)
      for value in (["a", 1], {"a": 1}, "x" * 70_000, ["a\0"], ["a"] * 60_000)),
    *(said("lora_dropout", value) for value in (2, -1, "0", None)),
    *(said("layers_to_transform", value) for value in ([-1], [1.5], "all", [True])),
    *(said("task_type", value) for value in ("EVIL", ["CAUSAL_LM"])),
    *(said("bias", value) for value in (["none"], True, "ALL")),
    *(said("modules_to_save", value) for value in ("lm_head", [""], [1], {"lm_head": 1})),
    *(said("trainable_token_indices", value)
      for value in ([-1], [1, 1], [True], [1.0], "1", {"": [1]}, [1], {"embed_tokens": 1})),
    *(said("target_parameters", value) for value in ("experts.down_proj", [""])),
    said("target_parameters", ["../../x"], UNSUPPORTED),
    said("target_parameters", ["\x1b[2J.weight"], UNSUPPORTED, r"\x1b[2J"),
    said("modules_to_save", ["\x1b[2J"], REFUSED, r"\x1b[2J"),
    said("target_parameters", ["experts.DOWN_PROJ"], UNSUPPORTED),
    said("eva_config", [1]),
    said("qalora_group_size", -1),
    said("peft_type", ["LORA"]),
    said("peft_type", "lora", UNSUPPORTED),
    said("peft_type", "L\u039fRA", UNSUPPORTED),  # a Greek O
    said("layer_replication", 0, UNSUPPORTED),
    said("use_qalora", "x", UNSUPPORTED),
    said("use_bdlora", True, UNSUPPORTED),
    said("init_lora_weights", "PiSSA", UNSUPPORTED),
    said("init_lora_weights", 1, UNSUPPORTED),
    said("init_lora_weights", ["gaussian"], UNSUPPORTED),
]  # fmt: skip
