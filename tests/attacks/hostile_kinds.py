"""Hostile adapters whose configuration and tensors contradict each other, kind by kind; as zips."""

from app.domain import errors as e
from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from tests.attacks.hostile import Hostile
from tests.intake.files import Q_PROJ, config_bytes, pair, weights, zipped

Shapes = list[tuple[str, list[int]]]

P = "base_model.model."
M = P + Q_PROJ
V_PROJ = "model.layers.0.self_attn.v_proj"
EMBED = P + "model.embed_tokens"
EXPERTS = "model.layers.0.mlp.experts"
DOWN, BOTH = (
    {"target_parameters": ["experts.down_proj"]},
    {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
)


def kind(
    name: str,
    error: type[e.Refused],
    culprit: str,
    shapes: Shapes,
    dtype: str = "F32",
    **config: object,
) -> Hostile:
    def make() -> bytes:
        raw = weights(shapes, dtype)
        return zipped({CONFIG_FILE: config_bytes(**config), WEIGHTS_FILE: raw})

    return Hostile(name, make, error, culprit)


def magnitude(shape: list[int], module: str = M) -> tuple[str, list[int]]:
    return (f"{module}.lora_magnitude_vector", shape)


def bias(shape: list[int]) -> tuple[str, list[int]]:
    return (f"{M}.lora_B.bias", shape)


def embedding(a: list[int], b: list[int]) -> Shapes:
    return [(f"{EMBED}.lora_embedding_A", a), (f"{EMBED}.lora_embedding_B", b)]


def experts(rows: int, columns: int, wrappers: int = 0) -> Shapes:
    module = P + EXPERTS + ".base_layer" * wrappers
    return [
        (f"{module}.lora_A.weight", [rows, 6]),
        (f"{module}.lora_B.weight", [4, columns]),
    ]


TENSOR, CONFIG, KIND = e.TensorRefused, e.ConfigRefused, e.UnsupportedAdapter
KINDS = [
    kind("DoRA without a magnitude", CONFIG, "use_dora", pair(), use_dora=True),
    kind("DoRA in one module of two", CONFIG, "use_dora",
         [*pair(), magnitude([4]), *pair(V_PROJ)], use_dora=True),
    kind("a magnitude that nobody asked for", TENSOR, "lora_magnitude_vector",
         [*pair(), magnitude([4])]),
    kind("a magnitude of another size", TENSOR, "lora_magnitude_vector",
         [*pair(), magnitude([5])], use_dora=True),
    kind("a magnitude of two axes", TENSOR, "lora_magnitude_vector",
         [*pair(), magnitude([4, 1])], use_dora=True),
    kind("a magnitude of no axis", TENSOR, "lora_magnitude_vector",
         [*pair(), magnitude([])], use_dora=True),
    kind("a magnitude alone", TENSOR, "lora_magnitude_vector",
         [*pair(), magnitude([4]), magnitude([4], P + V_PROJ)], use_dora=True),
    kind("use_dora in words", CONFIG, "use_dora", pair(), use_dora="yes"),
    kind("lora_bias without a bias", CONFIG, "lora_bias", pair(), lora_bias=True),
    kind("a bias that nobody asked for", TENSOR, "lora_B.bias", [*pair(), bias([4])]),
    kind("a bias of another size", TENSOR, "lora_B.bias", [*pair(), bias([3])], lora_bias=True),
    kind("a bias of two axes", TENSOR, "lora_B.bias", [*pair(), bias([4, 4])], lora_bias=True),
    kind("a bias on lora_A", KIND, "lora_A", [*pair(), (f"{M}.lora_A.bias", [2])], lora_bias=True),
    kind("half an embedding", TENSOR, "lora_embedding_A", embedding([2, 8], [6, 2])[:1]),
    kind("an embedding of another rank", e.RankMismatch, "embed_tokens",
         embedding([3, 8], [6, 3])),
    kind("an embedding with a linear factor", TENSOR, "embed_tokens",
         [*embedding([2, 8], [6, 2]), (f"{EMBED}.lora_A.weight", [2, 8])]),
    kind("an embedding of three axes", TENSOR, "lora_embedding_A", embedding([2, 8, 1], [6, 2])),
    kind("a factor of no axis", TENSOR, "lora_A", [(f"{M}.lora_A.weight", []), pair()[1]]),
    kind("a factor of three axes", TENSOR, "lora_B",
         [pair()[0], (f"{M}.lora_B.weight", [4, 2, 1])]),
    kind("a factor without rows", TENSOR, "lora_A",
         [(f"{M}.lora_A.weight", [0, 6]), (f"{M}.lora_B.weight", [4, 0])]),
    kind("B of another rank than A", e.RankMismatch, "lora_B",
         [pair()[0], (f"{M}.lora_B.weight", [4, 3])]),
    kind("a rank over the limit", CONFIG, "field r", pair(rank=2), r=10**6),
    kind("a pattern for another rank", e.RankMismatch, "q_proj",
         pair(), rank_pattern={"q_proj": 3}),
    kind("experts that the rank does not divide", TENSOR, "multiple", experts(5, 5), **DOWN),
    kind("experts of two counts", TENSOR, "columns", experts(4, 6), **DOWN),
    kind("two thousand experts", TENSOR, "over the limit", experts(4000, 4000), **DOWN),
    kind("a wrapper too many", CONFIG, "target_parameters",
         [*experts(4, 4), *experts(4, 4, 1)], **DOWN),
    kind("a wrapper missing", CONFIG, "target_parameters", experts(4, 4), **BOTH),
    kind("a hundred wrappers", TENSOR, "over the limit", experts(4, 4, 100), **BOTH),
    kind("wrappers that nobody asked for", KIND, "several parameters", experts(4, 4, 1)),
    kind("a parameter that we do not know", KIND, "self_attn.o_proj.weight",
         pair(), target_parameters=["self_attn.o_proj.weight"]),
    kind("an expert as a linear module", KIND, "expert", pair(f"{EXPERTS}.down_proj.0")),
    kind("a DoRA of experts", TENSOR, "lora_magnitude_vector",
         [*experts(4, 4), (f"{P}{EXPERTS}.lora_magnitude_vector", [4])], use_dora=True, **DOWN),
    kind("a full weight that nobody asked for", TENSOR, "lm_head",
         [*pair(), (f"{P}lm_head.weight", [8, 6])]),
    kind("saved modules that are not in the file", CONFIG, "modules_to_save",
         pair(), modules_to_save=["lm_head"]),
    kind("saved modules under a name", KIND, "modules_to_save",
         [*pair(), (f"{P}lm_head.modules_to_save.default.weight", [8, 6])],
         modules_to_save=["lm_head"]),
    kind("a bias of the model that nobody asked for", TENSOR, "q_proj.bias",
         [*pair(), (f"{M}.bias", [4])]),
    kind("bias in other words", CONFIG, "bias", pair(), bias="some"),
    kind("more trained tokens than rows", CONFIG, "trainable_token_indices",
         [*pair(), (f"{EMBED}.token_adapter.trainable_tokens_delta", [2, 6])],
         trainable_token_indices=[1, 2, 3]),
    kind("trained tokens that nobody asked for", TENSOR, "trainable_tokens_delta",
         [*pair(), (f"{EMBED}.token_adapter.trainable_tokens_delta", [1, 6])]),
    kind("a trained token of 10**12", CONFIG, "trainable_token_indices",
         [*pair(), (f"{EMBED}.token_adapter.trainable_tokens_delta", [1, 6])],
         trainable_token_indices=[10**12]),
    kind("one module in two spellings", KIND, "default",
         [*pair(), (f"{M}.lora_A.default.weight", [2, 6]), (f"{M}.lora_B.default.weight", [4, 2])]),
    kind("a module under another adapter's name", KIND, "adapter's name",
         [(f"{M}.lora_A.other.weight", [2, 6]), (f"{M}.lora_B.other.weight", [4, 2])]),
    kind("a model in a model", KIND, "wrapped in another",
         [(P + name, shape) for name, shape in pair()]),
    kind("no prefix", KIND, "prefix", [(name.removeprefix(P), shape) for name, shape in pair()]),
    kind("kohya's names", KIND, "kohya", [("lora_unet_down.lora_up.weight", [4, 2])]),
    kind("eight-bit floats", KIND, "F8_E4M3", pair(), dtype="F8_E4M3"),
    kind("boolean factors", KIND, "BOOL", pair(), dtype="BOOL"),
    kind("integer factors", KIND, "I64", pair(), dtype="I64"),
    *(
        kind(f"{name} as a method", KIND, name.upper(), pair(), peft_type=name)
        for name in ("LOHA", "LOKR", "ADALORA", "IA3", "OFT", "VERA", "PROMPT_TUNING", "XLORA")
    ),
    *(
        kind(f"the initialisation {name}", KIND, said, pair(), init_lora_weights=name)
        for name, said in (("pissa", "PiSSA"), ("pissa_niter_16", "PiSSA"), ("olora", "OLoRA"),
                           ("corda", "CorDA"), ("loftq", "LoftQ"), ("lora_ga", "LoRA-GA"))
    ),
    *(
        kind(f"{name} set", KIND, name, pair(), **{name: value})
        for name, value in (("layer_replication", [[0, 4]]), ("use_qalora", True),
                            ("megatron_config", {"a": 1}), ("arrow_config", {"a": 1}),
                            ("loftq_config", {"bits": 4}), ("alora_invocation_tokens", [1]))
    ),
]  # fmt: skip
