"""A SaLoRA kit as files: a PEFT adapter folder with `A0` and `B0` in it, and beside it

- `salora.safetensors`: for each module `<name>.V` (`V_s`, `(d_out, r_s)` float32), `<name>.probe`
  (`W` times a fixed unit vector, `(d_out,)` float32, by which the model is known again), and,
  unless `B` starts at zero, `<name>.A0` `(r, d_in)` and `<name>.B0` `(d_out, r)`;
- `salora_config.json`: what it was made of.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.alignment.salora_start import Start

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
        """Raises FileNotFoundError, and ValueError for files that are no kit of this version."""
        config = json.loads((folder / KIT_CONFIG).read_bytes())
        if not isinstance(config, dict) or config.get("version") != KIT_VERSION:
            raise ValueError(f"{folder / KIT_CONFIG} is not a kit of version {KIT_VERSION}")
        tensors = load_file(folder / KIT_TENSORS)
        names = [name.removesuffix(".V") for name in tensors if name.endswith(".V")]
        return cls(config, {name: _module(name, tensors) for name in sorted(names)})

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            found |= {f"{name}.V": module.safety, f"{name}.probe": module.probe}
            if module.start:
                found |= {f"{name}.A0": module.start.a, f"{name}.B0": module.start.b}
        return {name: tensor.float().contiguous() for name, tensor in found.items()}


def _module(name: str, tensors: Mapping[str, Tensor]) -> KitModule:
    a, b = (tensors.get(f"{name}.{part}") for part in ("A0", "B0"))
    start = Start(a, b) if a is not None and b is not None else None
    return KitModule(tensors[f"{name}.V"], tensors[f"{name}.probe"], start)


def probe(weight: Tensor) -> Tensor:
    """`W u` for one unit vector `u` of this width, `(d_out,)` float32: another model's is another.

    `weight` is `(d_out, d_in)` in any dtype."""
    generator = torch.Generator().manual_seed(weight.shape[1])
    u = torch.randn(weight.shape[1], dtype=torch.float64, generator=generator)
    u = (u / torch.linalg.vector_norm(u)).to(weight.device)
    seen: Tensor = weight.double() @ u
    return seen.float().cpu()
