"""Hostile adapters that are sound but for one thing that the gate looks at last, and dear to read.

Each is a few KiB as an archive; what it costs is held by `test_corpus`.
"""

import random
from collections.abc import Callable

from app.domain import errors as e
from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from tests.attacks.hostile import Hostile
from tests.intake.files import config_bytes, frame, weights, zipped

Shapes = list[tuple[str, list[int]]]
P = "base_model.model."
LAST = {"modules_to_save": ["nowhere"]}  # looked for when all modules are read
MIB = 1 << 20


def costly(
    name: str, error: type[e.Refused], culprit: str, make: Callable[[], Shapes], **config: object
) -> Hostile:
    def archive() -> bytes:
        files = {CONFIG_FILE: config_bytes(r=1, **config), WEIGHTS_FILE: weights(make(), "BF16")}
        return zipped(files)

    return Hostile(name, archive, error, culprit)


def header(name: str, culprit: str, text: Callable[[], str]) -> Hostile:
    """A header of nearly 4 MiB."""
    return Hostile(
        name,
        lambda: zipped({CONFIG_FILE: config_bytes(), WEIGHTS_FILE: frame(text().encode())}),
        e.MalformedSafetensors,
        culprit,
    )


def pairs(modules: list[str]) -> Shapes:
    return [
        (f"{P}{module}.lora_{side}.weight", [1, 1]) for module in modules for side in ("A", "B")
    ]


def nested(number: int, parts: int) -> str:
    return ".".join(["a"] * parts) + f".{number:06d}"


def experts(module: Callable[[int], str]) -> Callable[[], Shapes]:
    """The most modules that few bytes can hold: 1,024 in each pair of factors."""
    return lambda: [
        (f"{P}{module(layer)}.experts.lora_{side}.weight", shape)
        for layer in range(60)
        for side, shape in (("A", [1024, 1]), ("B", [1, 1024]))
    ]


def at_random() -> Shapes:
    rng = random.Random(0)
    return pairs(["".join(rng.choices("ab", k=430)) + f".m{n}" for n in range(3500)])


STATES = {f"(a|b)*a(a|b){{{60 + n % 30}}}c{n}": 1 for n in range(499)}
LARGE = {f"(a{{1,30}}){{1,30}}c{n}": 1 for n in range(499)}  # 1,800 each
NEARLY = {f"(a{{1,15}}){{1,30}}c{n}": 1 for n in range(499)}
DISTINCT_DOTS = {f"{n:013b}".translate({48: "a", 49: "."}): 1 for n in range(8_192)}
PREFIXES = [f"junk{n}" for n in range(99)]
EXPERTS = {"target_parameters": ["experts.down_proj"]}
MANY_EXPERTS = {"target_parameters": [*(f"x{n}.experts.down_proj" for n in range(99)),
                                      "experts.down_proj"]}  # fmt: skip
CONFIG, TENSOR, MALFORMED = e.ConfigRefused, e.TensorRefused, "a must have dtype"

COSTLY = [
    costly("17,000 modules", CONFIG, "nowhere", lambda: pairs([f"m{n}" for n in range(17_000)]),
           **LAST),
    costly("modules in modules", CONFIG, "nowhere",
           lambda: pairs(["x" * 400 + nested(n, 24) for n in range(3_300)]), **LAST),
    costly("names of 240 parts", TENSOR, "parts",
           lambda: pairs([nested(n, 225) for n in range(3_300)]), **LAST),
    costly("saved modules of 240 parts", TENSOR, "parts",
           lambda: [*pairs(["q"]), *((f"{P}{nested(n, 230)}.q.zz.weight", [1])
                                     for n in range(7_000))], modules_to_save=[*PREFIXES, "q.zz"]),
    costly("saved modules looked for a hundred times", CONFIG, "junk0",
           lambda: [*pairs(["q"]), *((f"{P}{nested(n, 24)}{'x' * 400}.q.zz.weight", [1])
                                     for n in range(7_000))], modules_to_save=[*PREFIXES, "q.zz"]),
    costly("60 times 1,024 experts", CONFIG, "nowhere",
           experts(lambda layer: f"model.layers.{layer}.mlp"), **EXPERTS, **LAST),
    costly("60 times 1,024 experts with long names", CONFIG, "nowhere",
           experts(lambda layer: "x" * 400 + "." + nested(layer, 24)), **EXPERTS, **LAST),
    costly("100,000 experts", TENSOR, "modules",
           lambda: experts(lambda layer: f"a.{layer}")() + experts(lambda layer: f"b.{layer}")(),
           **EXPERTS),
    costly("a hundred names of experts", CONFIG, "nowhere",
           lambda: pairs([f"m{n}.experts" for n in range(15_000)]), **MANY_EXPERTS, **LAST),
    costly("wrappers in wrappers", TENSOR, "parts",
           lambda: pairs([f"m{n}.experts" + ".base_layer" * 38 for n in range(3_000)]), **EXPERTS),
    costly("28,000 layers of trained tokens", CONFIG, "nowhere",
           lambda: [*pairs(["q"]), *((f"{P}m{n}.tok.token_adapter.trainable_tokens_delta", [1, 1])
                                     for n in range(28_000))],
           trainable_token_indices={**{f"x{n}": [1] for n in range(99)}, "tok": [1]}, **LAST),
    costly("keys with too many states", CONFIG, "cost too much", at_random,
           rank_pattern=STATES, alpha_pattern=STATES),
    costly("keys of many instructions", CONFIG, "cost too much", at_random,
           rank_pattern=LARGE, alpha_pattern=LARGE),
    costly("keys of many instructions, nearly too many", CONFIG, "cost too much", at_random,
           rank_pattern=NEARLY, alpha_pattern=NEARLY),
    costly("keys that differ in their dots", CONFIG, "cost too much",
           lambda: pairs([f"{'b' * 13}.{'b' * 13}.m{n}.{'b' * 13}" for n in range(12_000)]),
           rank_pattern=DISTINCT_DOTS, alpha_pattern=DISTINCT_DOTS),
    header("a million empty objects", MALFORMED, lambda: '{"a":[' + "{}," * 1_398_000 + "{}]}"),
    header("a million empty lists", MALFORMED, lambda: '{"a":[' + "[]," * 1_398_000 + "[]]}"),
    header("objects of objects of objects", MALFORMED,
           lambda: '{"a":[' + '{"":{"":{"":0}}},' * 246_000 + "0]}"),
    header("800,000 strings", MALFORMED, lambda: '{"a":[' + '"\u0100",' * 830_000 + "0]}"),
    header("one string of four bytes a character", MALFORMED,
           lambda: f'{{"a":"{"x" * 4_100_000}\U0001f600"}}'),
    header("420,000 tensors", "420000 tensors",
           lambda: "{" + ",".join(f'"{n:x}":0' for n in range(420_000)) + "}"),
    header("50,000 tensors in one place", "overlaps", lambda: "{" + ",".join(
        f'"m{n}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}' for n in range(50_000)) + "}"),
    header("numbers of twenty digits", MALFORMED,
           lambda: '{"a":[' + "18446744073709551615," * 199_000 + "0]}"),
    header("a metadata of 300,000 keys", "is not a string", lambda: '{"__metadata__":{'
           + ",".join(f'"{n:x}":""' for n in range(300_000)) + ',"\\ud83d\\ude00":0}}'),
]  # fmt: skip
