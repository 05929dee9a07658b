"""One sound adapter of each kind that the gate takes: what mutations start from."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from tests.intake.files import CONFIG, Q_PROJ, pair, weights

P = "base_model.model."
M = P + Q_PROJ
V_PROJ = "model.layers.0.self_attn.v_proj"
EMBED = "model.embed_tokens"
EXPERTS = "model.layers.0.mlp.experts"
Shapes = list[tuple[str, list[int]]]


class Adapter(NamedTuple):
    config: Mapping[str, object]
    weights: bytes

    @property
    def config_bytes(self) -> bytes:
        return json.dumps(self.config).encode()


def adapter(shapes: Shapes, dtype: str = "F32", **config: object) -> Adapter:
    return Adapter({**CONFIG, **config}, weights(shapes, dtype, {"format": "pt"}))


def factors(module: str, rows: int, columns: int) -> Shapes:
    return [(f"{P}{module}.lora_A.weight", [rows, 6]), (f"{P}{module}.lora_B.weight", [4, columns])]


EMBEDDING: Shapes = [
    (f"{P}{EMBED}.lora_embedding_A", [2, 8]),
    (f"{P}{EMBED}.lora_embedding_B", [6, 2]),
]
HONEST: Mapping[str, Adapter] = {
    "linear": adapter([*pair(), *pair(V_PROJ)], "BF16"),
    "named": adapter([(name.replace(".weight", ".default.weight"), shape)
                      for name, shape in pair()]),
    "patterns": adapter([*pair(rank=3), *pair(V_PROJ)], rank_pattern={"q_proj": 3},
                        alpha_pattern={"^model.*v_proj": 4}, use_rslora=True),
    "dora": adapter([*pair(), (f"{M}.lora_magnitude_vector", [4])], use_dora=True),
    "bias": adapter([*pair(), (f"{M}.lora_B.bias", [4])], lora_bias=True),
    "embedding": adapter([*pair(), *EMBEDDING]),
    "tokens": adapter([*pair(), (f"{P}{EMBED}.token_adapter.trainable_tokens_delta", [2, 6])],
                      trainable_token_indices=[1, 5]),
    "saved": adapter([*pair(), (f"{P}lm_head.weight", [8, 6]), (f"{M}.bias", [4])],
                     modules_to_save=["lm_head"], bias="all"),
    "tied": adapter([*EMBEDDING, (f"{P}{EMBED}.base_layer.weight", [8, 6])]),
    "experts": adapter([*factors(EXPERTS, 6, 6), *factors(EXPERTS + ".base_layer", 6, 6)],
                       target_parameters=["experts.gate_up_proj", "experts.down_proj"]),
    "router": adapter(factors("model.layers.0.mlp.gate", 2, 2), target_parameters=["gate.weight"]),
}  # fmt: skip
"""By kind."""
