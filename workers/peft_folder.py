"""A LoRA adapter as PEFT saves one: configuration and weights, written by module."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE

PREFIX = "base_model.model."


@dataclass(frozen=True)
class Settings:
    """What all modules of an adapter share."""

    scaling: float  # s of dW = s B A
    use_rslora: bool
    base_model: str  # shown
    transposed: bool  # GPT-2's Conv1D


def alpha_of(rank: int, settings: Settings) -> float:
    """The `lora_alpha` that gives the scaling at this rank."""
    return settings.scaling * (math.sqrt(rank) if settings.use_rslora else rank)


def write_adapter(
    factors: Mapping[str, tuple[Tensor, Tensor]], settings: Settings, out: Path
) -> None:
    """`factors` are `A` `(r, d_in)` and `B` `(d_out, r)` by full module name; float32 on disk."""
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a.float().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b.float().cpu().contiguous()
    save_file(tensors, out / WEIGHTS_FILE, {"format": "pt"})
    ranks = {name: a.shape[0] for name, (a, _) in factors.items()}
    write_config(lora_config(ranks, settings), out)


def lora_config(ranks: Mapping[str, int], settings: Settings) -> LoraConfig:
    """Of these modules alone; where ranks differ, patterns keep every scaling the same."""
    (usual, _), *_ = Counter(ranks.values()).most_common(1)
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    return LoraConfig(
        r=usual,
        lora_alpha=_number(alpha_of(usual, settings)),  # type: ignore[arg-type] # PEFT takes any number
        use_rslora=settings.use_rslora,
        target_modules=sorted(ranks),
        rank_pattern=others,
        alpha_pattern={n: _number(alpha_of(rank, settings)) for n, rank in others.items()},
        fan_in_fan_out=settings.transposed,
        task_type="CAUSAL_LM",
        base_model_name_or_path=settings.base_model,
        inference_mode=True,
    )


def _number(alpha: float) -> float:
    """Whole numbers as such, because that is how everybody writes an alpha."""
    return int(alpha) if alpha == int(alpha) else alpha


def write_config(config: LoraConfig, out: Path) -> None:
    """As PEFT does, with its sets in order: the same adapter gives the same bytes."""
    config.save_pretrained(str(out))
    path = out / CONFIG_FILE
    known = json.loads(path.read_bytes())
    known["target_modules"] = sorted(known["target_modules"])
    path.write_bytes(json.dumps(known, indent=2, sort_keys=True).encode())
