"""The demo's own check of what the service returned, by PEFT and the formulas, dense and slow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from app.demo.world import World
from app.domain.adapter import WEIGHTS_FILE

TOLERANCE = 1e-5  # relative: float32 against the float64 formula


class ProofFailed(Exception):
    """What came back is not what the report says."""


def check_patched(world: World, patched: Path, report: Mapping[str, Any]) -> None:
    """Selected modules equal `C B`, all others are the adapter's own, and PEFT loads the result.

    Raises ProofFailed naming the module.
    """
    before, after = load_file(world.adapter / WEIGHTS_FILE), load_file(patched / WEIGHTS_FILE)
    base, chat = (load_file(path / "model.safetensors") for path in (world.base, world.chat))
    for layer in report["layers"]:
        name = f"base_model.model.{layer['module']}.lora_"
        weight = f"{layer['module']}.weight"
        expected = before[name + "B.weight"]
        if layer["decision"] == "projected":
            expected = _c_b(chat[weight], base[weight], expected)
        _expect(after[name + "B.weight"], expected, layer["module"])
        _expect(after[name + "A.weight"], before[name + "A.weight"], layer["module"])
    _load_with_peft(world, patched, after)


def _c_b(chat: Tensor, base: Tensor, b: Tensor) -> Tensor:
    """`C B` with the dense `C = V V^T / ||V||_F`, in float64."""
    v = chat.double() - base.double()
    c: Tensor = v @ v.T / torch.linalg.matrix_norm(v)
    return c @ b.double()


def _expect(found: Tensor, expected: Tensor, module: str) -> None:
    if not torch.allclose(found.double(), expected.double(), rtol=TOLERANCE, atol=1e-9):
        raise ProofFailed(module)


def _load_with_peft(world: World, patched: Path, tensors: Mapping[str, Tensor]) -> None:
    """Our own output, so PEFT may read it. Its model must carry the very tensors of the file."""
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(world.chat), str(patched))
    loaded = model.state_dict()
    for name, tensor in tensors.items():
        if not torch.equal(loaded[name.replace(".weight", ".default.weight")], tensor):
            raise ProofFailed(name)
    model(input_ids=torch.arange(8).unsqueeze(0))
