"""Hostile `adapter_model.safetensors`."""

import json
import pickle
import struct

from app.domain import errors as e
from app.domain.adapter import WEIGHTS_FILE
from tests.attacks.hostile import Hostile, torch_zip
from tests.intake.files import GOOD_WEIGHTS, Q_PROJ, field, frame, pair, weights, zipped

A = pair()[0][0]
B = pair()[1][0]
LORA = {A: field("F32", [2, 6], 0, 48), B: field("F32", [4, 2], 48, 80)}


def tensors(data_bytes: int = 80, **changes: object) -> bytes:
    """The sound weights with fields of lora_B changed."""
    return frame({**LORA, B: {**LORA[B], **changes}}, bytes(data_bytes))


def raw_header(text: str, data_bytes: int = 80) -> bytes:
    return frame(text.encode(), bytes(data_bytes))


def replaced(old: str, new: str) -> bytes:
    """The sound weights with a piece of their header's text changed."""
    text = json.dumps(LORA)
    assert old in text
    return raw_header(text.replace(old, new, 1))


def empty_tensors() -> bytes:
    """The 84 MB header that took safetensors 7.7 s, as its length field says it."""
    return struct.pack("<Q", 84_000_000) + b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


MALFORMED = e.MalformedSafetensors
WEIGHTS = [
    Hostile("an empty file", lambda: b"", MALFORMED, "0 bytes"),
    Hostile("a length without a header", lambda: bytes(8), MALFORMED, "begin with {"),
    Hostile("a length of 2**64 - 1", lambda: b"\xff" * 16, MALFORMED, "over the limit"),
    Hostile("a header of 84 MB", empty_tensors, MALFORMED, "84000000"),
    Hostile("a header past the end", lambda: struct.pack("<Q", 999) + b"{}", MALFORMED,
            "cut short"),
    Hostile("a header that is a list", lambda: raw_header("[]", 0), MALFORMED, "begin with {"),
    Hostile("a header after a space", lambda: raw_header(" {}", 0), MALFORMED, "begin with {"),
    Hostile("a header that is not UTF-8", lambda: frame(b'{"\xff":1}'), MALFORMED, "utf-8"),
    Hostile("a header that ends early", lambda: raw_header('{"a":'), MALFORMED, "Expecting value"),
    Hostile("two values", lambda: raw_header("{} {}"), MALFORMED, "Extra data"),
    Hostile("a name twice", lambda: raw_header(f'{{"{A}":1,"{A}":2}}'), MALFORMED, A),
    Hostile(
        "a field twice",
        lambda: replaced('"dtype": "F32"', '"dtype": "F32", "dtype": "F64"'),
        MALFORMED,
        "duplicate key dtype",
    ),
    Hostile("overlapping offsets", lambda: tensors(76, data_offsets=[44, 76]), MALFORMED, B),
    Hostile("a hole", lambda: tensors(84, data_offsets=[52, 84]), MALFORMED, f"{B} leaves a hole"),
    Hostile("two tensors in one place", lambda: frame({A: LORA[A], "x": LORA[A]}, bytes(48)),
            MALFORMED, "overlaps"),
    Hostile("data that does not begin at 0", lambda: frame({A: field("U8", [1], 1, 2)}, b"ab"),
            MALFORMED, "hole"),
    Hostile("offsets in reverse", lambda: tensors(data_offsets=[80, 48]), MALFORMED, B),
    Hostile("offsets past the end", lambda: tensors(70), MALFORMED, "cut short"),
    Hostile("a truncated file", lambda: GOOD_WEIGHTS[:-1], MALFORMED, "1 bytes are missing"),
    Hostile("a padded file", lambda: GOOD_WEIGHTS + b"\0", MALFORMED, "padded"),
    Hostile("a polyglot zip", lambda: GOOD_WEIGHTS + zipped({"a": b"b"}), MALFORMED, "padded"),
    Hostile("a shape that overflows 64 bits", lambda: tensors(shape=[2**32, 2**32]), MALFORMED, B),
    Hostile("dimensions past 2**63", lambda: tensors(shape=[2**63, 2]), MALFORMED, B),
    Hostile("too many dimensions", lambda: tensors(shape=[1] * 7 + [4, 2]), MALFORMED, B),
    Hostile("a shape of booleans", lambda: tensors(shape=[True, 8]), MALFORMED, B),
    Hostile("a negative shape", lambda: tensors(shape=[-4, -2]), MALFORMED, B),
    Hostile("a shape of floats", lambda: tensors(shape=[4.0, 2]), MALFORMED, B),
    Hostile("a shape of strings", lambda: tensors(shape=["4", "2"]), MALFORMED, B),
    Hostile("a shape that is a string", lambda: tensors(shape="42"), MALFORMED, B),
    Hostile("a null shape", lambda: tensors(shape=None), MALFORMED, B),
    Hostile("three offsets", lambda: tensors(data_offsets=[48, 80, 80]), MALFORMED, B),
    Hostile("one offset", lambda: tensors(data_offsets=[48]), MALFORMED, B),
    Hostile("boolean offsets", lambda: tensors(data_offsets=[False, True]), MALFORMED, B),
    Hostile("an unknown dtype", lambda: tensors(dtype="F33"), MALFORMED, "F33"),
    Hostile("a dtype that is a list", lambda: tensors(dtype=["F32"]), MALFORMED, B),
    Hostile("a dtype of another size", lambda: tensors(dtype="F64"), MALFORMED, B),
    Hostile("an extra field", lambda: tensors(evil=1), MALFORMED, B),
    Hostile("a tensor that is a number", lambda: frame({A: 1}), MALFORMED, A),
    Hostile("a tensor without a shape", lambda: frame({A: {"dtype": "F32"}}), MALFORMED, A),
    Hostile("zero elements of 10**15", lambda: frame({A: field("F32", [0, 10**12], 0, 0)}),
            e.TensorRefused, A),
    Hostile("a zero dimension of 10**15", lambda: frame({A: field("F32", [0, 10**15], 0, 0)}),
            MALFORMED, A),
    Hostile("NaN in a shape", lambda: replaced("[2, 6]", "[NaN, 6]"), MALFORMED, "NaN"),
    Hostile("Infinity in a shape", lambda: replaced("[2, 6]", "[Infinity]"), MALFORMED, "Infinity"),
    Hostile("an exponent of infinity", lambda: replaced("[2, 6]", "[1e999]"), MALFORMED, "1e999"),
    Hostile("minus zero", lambda: replaced("[0, 48]", "[-0, 48]"), MALFORMED, "-0"),
    Hostile("a number of 5,000 digits", lambda: replaced("[2, 6]", f"[1{'0' * 5000}]"),
            MALFORMED, "out of range"),
    Hostile("a number of a million digits", lambda: replaced("[2, 6]", f"[1{'0' * 10**6}]"),
            MALFORMED, "out of range"),
    Hostile("a shape nested 100,000 deep",
            lambda: replaced("[2, 6]", "[" * 10**5 + "]" * 10**5), MALFORMED, "nested"),
    Hostile("objects nested 100,000 deep",
            lambda: raw_header('{"a":' * 10**5 + "1" + "}" * 10**5), MALFORMED, "nested"),
    Hostile("brackets never closed", lambda: raw_header('{"a":' + "[" * 10**6), MALFORMED,
            "nested"),
    Hostile("a shape nested 500 deep",
            lambda: replaced("[2, 6]", "[" * 500 + "]" * 500), MALFORMED, "nested"),
    Hostile("metadata of numbers", lambda: frame({**LORA, "__metadata__": {"rank": 8}}, bytes(80)),
            MALFORMED, "__metadata__ rank"),
    Hostile("metadata of null", lambda: frame({**LORA, "__metadata__": None}, bytes(80)),
            MALFORMED, "__metadata__"),
    Hostile("nested metadata", lambda: frame({**LORA, "__metadata__": {"a": {}}}, bytes(80)),
            MALFORMED, "__metadata__ a"),
    Hostile("metadata twice", lambda: raw_header('{"__metadata__":{},"__metadata__":{}}', 0),
            MALFORMED, "__metadata__"),
    Hostile("a lone surrogate", lambda: raw_header(r'{"\ud800":1}'), MALFORMED, "surrogate"),
    Hostile("60,000 tensors",
            lambda: frame(json.dumps({f"{n}": {} for n in range(60_000)}).encode()),
            MALFORMED, "60000 tensors"),
    *[
        Hostile(f"the name {name!r}", lambda name=name: weights([(name, [1])]), e.TensorRefused,
                said)
        for name, said in [
            ("../../etc/passwd\n\0", r"../../etc/passwd\n\x00"), ("..", "tensor .."),
            ("a..b", "a..b"), ("/etc/passwd", "/etc/passwd"), ("a b", "a b"), ("", "tensor  is"),
            ("a\x1b[2J", r"a\x1b[2J"), ("a\u202eb", r"a\u202eb"), ("\u0430", "tensor"),
            (".a", ".a"), ("a.", "a."), ("a\n", r"a\n"), ("x" * 513, "characters"),
            ("${jndi:ldap://x}", "jndi"), ("<script>", "<script>"),
        ]
    ],
    Hostile("a pickle", lambda: pickle.dumps({"a": list(range(99))}), e.PickleRefused,
            WEIGHTS_FILE),
    Hostile("a pickle of protocol 2", lambda: pickle.dumps([1] * 99, 2), e.PickleRefused,
            WEIGHTS_FILE),
    Hostile("a torch file", torch_zip, e.PickleRefused, WEIGHTS_FILE),
    Hostile("another module's factor twice",
            lambda: weights([*pair(), (f"base_model.model.base_model.model.{Q_PROJ}.lora_A.weight",
                                       [2, 6])]), e.UnsupportedAdapter, "wrapped"),
    Hostile("a full weight among the factors",
            lambda: weights([*pair(), ("base_model.model.lm_head.weight", [4, 6])]),
            e.TensorRefused, "lm_head.weight"),
    Hostile("a rank other than the configuration's", lambda: weights(pair(rank=64)),
            e.RankMismatch, "rank 2"),
    Hostile("integers", lambda: weights(pair(), "I32"), e.UnsupportedAdapter, "I32"),
    Hostile("no tensors", lambda: frame({}), e.EmptyAdapter, WEIGHTS_FILE),
]  # fmt: skip
