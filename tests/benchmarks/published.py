"""Safe LoRA the published way, in a few lines of our own, for `whole_process` to measure.

As in the authors' procedure: base, chat and adapted model loaded whole in float32, modules paired
by their order, every `C` dense and all of them kept, updates dense.
`python -m tests.benchmarks.published BASE CHAT ADAPTER OUT`
"""

import sys
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import LlamaForCausalLM

THRESHOLD = 0.5


def main(base: Path, chat: Path, adapter: Path, out: Path) -> None:
    models = [LlamaForCausalLM.from_pretrained(p, dtype=torch.float32) for p in (base, chat)]
    tuned = PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(chat, dtype=torch.float32), str(adapter)
    )
    adapted = [module for module in tuned.modules() if hasattr(module, "lora_A")]
    kinds = {name.split(".")[-1] for name, m in tuned.named_modules() if hasattr(m, "lora_A")}
    projectors = [
        aligned(*pair) for pair in zip(*(weights(model, kinds) for model in models), strict=True)
    ]
    cosines = []
    for module, c in zip(adapted, projectors, strict=True):
        a, b = (getattr(module, side)["default"].weight.data for side in ("lora_A", "lora_B"))
        c_b = c @ b
        cosine = torch.nn.functional.cosine_similarity(
            (b @ a).flatten(), (c_b @ a).flatten(), dim=0
        )
        cosines.append(float(cosine))
        if cosine <= THRESHOLD:
            b.copy_(c_b)
    tuned.save_pretrained(str(out))
    print(f"{len(cosines)} modules, mean cosine {sum(cosines) / len(cosines):.4f}")


def weights(model: nn.Module, kinds: set[str]) -> list[torch.Tensor]:
    """In the order of the model's parameters."""
    return [p.data for name, p in model.named_parameters() if name.split(".")[-2] in kinds]


def aligned(base: torch.Tensor, chat: torch.Tensor) -> torch.Tensor:
    v = chat - base
    return v @ v.T / torch.linalg.matrix_norm(v)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
