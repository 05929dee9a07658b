"""The device's memory against the CPU, on Llama-2-7B's module shapes; needs a CUDA device."""

import math
import os

import torch
from torch import Tensor

from app.alignment.approximate import apply_approximate
from app.alignment.blocks import Scratch
from app.alignment.device import DeviceGram, DeviceV
from app.alignment.difference import Difference, TensorWeight
from app.alignment.gram import gram
from app.alignment.panels import hold
from tests.benchmarks.measure import MIB, best

RANK, ADAPTERS, ROUNDS = 8, 16, 10
SHAPES = {"4096 x 4096": (4096, 4096), "11008 x 4096": (11008, 4096), "4096 x 11008": (4096, 11008)}


def main() -> None:
    if not torch.cuda.is_available():
        print("device memory: no CUDA device here, nothing measured")
        return
    torch.set_num_threads(os.cpu_count() or 1)
    torch.backends.cuda.matmul.allow_tf32 = False
    print(f"{torch.cuda.get_device_name()}, bf16, r = {RANK}: milliseconds a module")
    for title, shape in SHAPES.items():
        measured(title, shape)


def measured(title: str, shape: tuple[int, int]) -> None:
    v, scratch = difference(shape), Scratch()
    one, many = (torch.randn(shape[0], RANK * n) for n in (1, ADAPTERS))
    expected, norm = apply_approximate(v, one, scratch)
    cpu = best(lambda _: apply_approximate(v, one, scratch), 1, ROUNDS)
    print(f"  {title:14} computed on the CPU {cpu * 1e3:8.2f}")
    panels = hold(v, scratch).panels
    there = {"V": DeviceV(panels.layout, panels.tensor, norm)}
    if shape[0] <= shape[1]:
        there["V V^T"] = DeviceGram(gram(panels, scratch), norm)
    for name, given in there.items():
        kept = given.copied(torch.device("cuda"))
        error = torch.linalg.norm(kept.apply(one).product - expected) / torch.linalg.norm(expected)
        taken = [best(lambda _, k=kept, b=b: k.apply(b), 1, ROUNDS) for b in (one, many)]
        print(
            f"    {name:6} there {taken[0] * 1e3:8.2f}, {ADAPTERS} adapters {taken[1] * 1e3:8.2f}; "
            f"{given.size_bytes / MIB:.0f} MiB, 10^{math.log10(float(error)):.1f} apart"
        )


def difference(shape: tuple[int, int]) -> Difference:
    base: Tensor = torch.randn(shape) * 0.02
    chat = base + torch.randn(shape) * 0.002
    return Difference(TensorWeight("chat", chat.bfloat16()), TensorWeight("base", base.bfloat16()))


if __name__ == "__main__":
    main()
