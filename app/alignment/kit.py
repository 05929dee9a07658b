"""A SaLoRA kit as files: a PEFT adapter folder with `A0` and `B0` in it, and beside it

- `salora.safetensors`: for each module `<name>.V` (`V_s`, `(d_out, r_s)` float32), `<name>.probe`
  (`W` times a fixed unit vector, `(d_out,)` float32, by which the model is known again), and,
  unless `B` starts at zero, `<name>.A0` `(r, d_in)` and `<name>.B0` `(d_out, r)`;
- `salora_config.json`: what it was made of.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from app.alignment.safety_module import checked_basis, checked_made_of
from app.alignment.salora_start import Start
from app.domain.salora import part_id

KIT_TENSORS = "salora.safetensors"
KIT_CONFIG = "salora_config.json"
KIT_VERSION = "1"


@dataclass(frozen=True)
class KitModule:
    """What is fixed while one module trains."""

    safety: Tensor  # V_s (d_out, r_s) float32
    probe: Tensor  # (d_out,) float32, see `probe`
    start: Start | None  # None where B0 is zero


@dataclass(frozen=True)
class Kit:
    config: Mapping[str, Any]
    modules: Mapping[str, KitModule]  # by full name in the chat model

    def save(self, folder: Path) -> None:
        """Write both files. The same kit gives the same bytes."""
        save_file(self._tensors(), folder / KIT_TENSORS)
        text = json.dumps({**self.config, "version": KIT_VERSION}, indent=2, sort_keys=True)
        (folder / KIT_CONFIG).write_bytes(f"{text}\n".encode())

    @classmethod
    def load(cls, folder: Path) -> "Kit":
        """Raises FileNotFoundError, and ValueError for files that are no kit of this version, or
        whose numbers would train something else than they say.

        The tensors are read, not mapped: what trains does not change when the file does.
        """
        config, path = _config(folder / KIT_CONFIG), folder / KIT_TENSORS
        has_start = config["made_of"].get("initialisation") != "zero"
        try:
            tensors = load(path.read_bytes())
            ranks: dict[str, int] = config["ranks"]
            if {f"{name}.V" for name in ranks} != {name for name in tensors if name.endswith(".V")}:
                raise ValueError("it is of other modules than its configuration")
            modules = {n: _module(n, tensors, ranks[n], has_start) for n in sorted(ranks)}
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is not a kit's: {error}") from error
        return cls(config, modules)

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            found |= {f"{name}.V": module.safety, f"{name}.probe": module.probe}
            if module.start:
                found |= {f"{name}.A0": module.start.a, f"{name}.B0": module.start.b}
        return {name: tensor.float().contiguous() for name, tensor in found.items()}


def _config(path: Path) -> dict[str, Any]:
    """Raises FileNotFoundError, ValueError."""
    try:
        config = json.loads(path.read_bytes())
        if _is_kits(config):
            checked_made_of(config["made_of"])
            return dict(config)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        pass
    raise ValueError(f"{path} is not a kit of version {KIT_VERSION}")


def _is_kits(config: Any) -> bool:
    """Raises KeyError, TypeError, OverflowError where it is none either."""
    texts = (config["id"], config["chat_model"]["id"], config["chat_model"]["digest"])
    ranks, scaling = config["ranks"], config["scaling"]
    return (
        config["version"] == KIT_VERSION
        and part_id(config["made_of"]) == config["id"]
        and all(isinstance(text, str) for text in texts)
        and isinstance(config["use_rslora"], bool)
        and not isinstance(scaling, bool)
        and math.isfinite(scaling)
        and scaling > 0
        and isinstance(ranks, dict)
        and all(type(rank) is int and rank > 0 for rank in ranks.values())
    )


def _module(name: str, tensors: Mapping[str, Tensor], rank: int, has_start: bool) -> KitModule:
    """Raises KeyError, ValueError."""
    safety = checked_basis(tensors[f"{name}.V"])
    d_out = safety.shape[0]
    seen = _checked(tensors[f"{name}.probe"], (d_out,))
    if not has_start:
        return KitModule(safety, seen, None)
    a = tensors[f"{name}.A0"]
    b = _checked(tensors[f"{name}.B0"], (d_out, rank))
    return KitModule(safety, seen, Start(_checked(a, (rank, a.numel() // rank)), b))


def _checked(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Raises ValueError."""
    if tensor.shape != shape or tensor.dtype != torch.float32 or not tensor.isfinite().all():
        raise ValueError(f"it holds no finite float32 of shape {shape} where it should")
    return tensor


def probe(weight: Tensor) -> Tensor:
    """`W u` for one unit vector `u` of this width, `(d_out,)` float32: another model's is another.

    `weight` is `(d_out, d_in)` in any dtype."""
    generator = torch.Generator().manual_seed(weight.shape[1])
    u = torch.randn(weight.shape[1], dtype=torch.float64, generator=generator)
    u = (u / torch.linalg.vector_norm(u)).to(weight.device)
    seen: Tensor = weight.double() @ u
    return seen.float().cpu()
