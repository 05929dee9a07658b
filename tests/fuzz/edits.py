"""Small changes to an upload that keep its form, so that they reach behind the parsers.

Every choice is made by `choose(n)`, a number in [0, n): Hypothesis draws it, or a random generator.
"""

import copy
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from app.intake.lora_fields import KNOWN
from app.intake.safetensors_header import DTYPE_BITS
from tests.fuzz.honest import HONEST, M
from tests.intake.files import frame

Choose = Callable[[int], int]

MOST_DATA_BYTES = 1 << 16
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, -1, 2**31, 2**40, 2**53, 2**63, 2**64 - 1, 2**64, 0.5, 1e-9,
    1e308, "", "\0", "\u0430", "q_proj", "default", "(a+)+$", "x" * 600, [], {}, [[]], [0, 48],
    ["lm_head"], {"q_proj": 2}, [2, 6], [6, 2], [1, 5], "F64", "BF16", "I8", "all", "lora_only",
)  # fmt: skip
SUFFIXES = (
    ".lora_A.weight", ".lora_B.weight", ".lora_A.default.weight", ".lora_B.bias", ".lora_A.bias",
    ".lora_magnitude_vector", ".lora_magnitude_vector.default.weight", ".lora_embedding_A",
    ".lora_embedding_B", ".token_adapter.trainable_tokens_delta", ".weight", ".bias",
    ".base_layer.weight", ".base_layer.lora_A.weight", ".modules_to_save.weight",
)  # fmt: skip
NAMES = (*(M + suffix for suffix in SUFFIXES), "__metadata__", "base_model.model.lm_head.weight")
FIELDS = tuple(sorted(KNOWN))


def edited_pair(kind: str, choose: Choose) -> tuple[bytes, bytes]:
    """Configuration and weights of a sound adapter after one to three changes."""
    config, weights = HONEST[kind]
    for _ in range(1 + choose(3)):
        if choose(3):
            weights = edited_weights(weights, choose)
        else:
            config = edited_json(config, FIELDS, choose)
    return json.dumps(config).encode(), weights


def edited_weights(weights: bytes, choose: Choose) -> bytes:
    """Another header; half of them laid out anew, so that shapes and offsets agree again."""
    length = int.from_bytes(weights[:8], "little")
    header = edited_json(json.loads(weights[8 : 8 + length]), NAMES, choose)
    return laid_out(header) if choose(2) else frame(header, weights[8 + length :])


def laid_out(header: Mapping[str, Any]) -> bytes:
    at, told = 0, {}
    for name, said in header.items():
        size = _size_bytes(said)
        told[name] = said if size is None else {**said, "data_offsets": [at, at + size]}
        at += size or 0
    return frame(told, b"\1" * at)


def _size_bytes(said: Any) -> int | None:
    """None for what is no tensor, or too large a one to write."""
    try:
        shape, bits = list(said["shape"]), DTYPE_BITS[said["dtype"]]
    except (KeyError, TypeError, IndexError):
        return None
    if not all(type(axis) is int for axis in shape):
        return None  # because a list times 2**40 is a long list
    size = math.prod(shape) * bits // 8
    return size if 0 <= size <= MOST_DATA_BYTES else None


def edited_json(value: Mapping[str, Any], names: tuple[str, ...], choose: Choose) -> dict[str, Any]:
    root: dict[str, Any] = copy.deepcopy(dict(value))
    places = _places(root)
    parent, key = places[choose(len(places))]
    other, other_key = places[choose(len(places))]
    edits: tuple[Callable[[], None], ...] = (
        lambda: parent.__setitem__(key, ODD[choose(len(ODD))]),
        lambda: parent.__setitem__(key, copy.deepcopy(other[other_key])),
        lambda: parent.__setitem__(key, _nudged(parent[key], choose)),
        lambda: parent.__delitem__(key),
        lambda: _rename(parent, key, names[choose(len(names))]),
        lambda: root.__setitem__(names[choose(len(names))], copy.deepcopy(parent[key])),
        lambda: root.__setitem__(names[choose(len(names))], ODD[choose(len(ODD))]),
    )
    edits[choose(len(edits))]()
    return root


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (parent, key) inside a JSON value."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _nudged(value: Any, choose: Choose) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return (value + 1, value - 1, value * 2, -value, float(value))[choose(5)]


def _rename(parent: Any, key: Any, name: str) -> None:
    if isinstance(parent, dict):
        parent[name] = parent.pop(key)
