"""One side of `salora`, in a process of its own, because memory that was once in use hides what is
used later. `python -m tests.benchmarks.salora_side SIDE ROWS KINDS OUT` writes what it found to OUT
and prints what it took, JSON. The side `reference` is the whole SVD, in float64.
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from tests.benchmarks.measure import resident_rise
from tests.benchmarks.salora_published import bases, inputs
from tests.benchmarks.salora_world import LAYERS, data, llama, targets
from workers.encoding import Batch, EncodedSet, by_tokens, stack
from workers.sweeping import sweep

RANK, BATCH_TOKENS, WARM_ROWS = 32, 512, 2
LOOKED_AT = [0, LAYERS - 1]  # layers whose outputs are decomposed whole
Found = dict[str, Tensor]  # full name -> V_s (d_out, r_s)


def main(side: str, rows: int, kinds: list[str], out: Path) -> None:
    torch.set_num_threads(1)  # the processor's time for it is then nearly the same beside others
    model, work = llama(), SIDES[side]
    work(model, kinds, data(WARM_ROWS))  # libraries are loaded and prepared at their first use
    passes, given = passes_of(model), data(rows)
    began = time.process_time()
    with resident_rise() as rise:
        found = work(model, kinds, given)
    took = time.process_time() - began
    print(json.dumps({"passes": len(passes), "bytes": rise[0], "seconds": took}))
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, out)


def ours(model: PreTrainedModel, kinds: list[str], rows: EncodedSet) -> Found:
    modules = targets(model, kinds)
    swept = sweep(model, modules, rows, RANK, lambda *_: None, batch_tokens=BATCH_TOKENS)
    return {name: found.basis for name, found in swept.subspaces.items()}


def published(model: PreTrainedModel, kinds: list[str], rows: EncodedSet) -> Found:
    found: Found = {}
    for layer in range(LAYERS):
        found |= bases(model, targets(model, kinds, [layer]), batches_of(rows), RANK)
    return found


def reference(model: PreTrainedModel, kinds: list[str], rows: EncodedSet) -> Found:
    """`S Z^T` `(d_out, d_out)` of the SVD `U S Z^T` of each module's outputs, without `U`: the
    triangle of a QR decomposition has the same."""
    modules = targets(model, kinds, LOOKED_AT)
    kept, found = inputs(model, modules, batches_of(rows)), {}
    for name, module in modules.items():
        y = torch.cat(kept.pop(name)).double() @ module.weight.double().T
        _, values, right = torch.linalg.svd(torch.linalg.qr(y, mode="r").R, full_matrices=False)
        found[name] = values[:, None] * right
    return found


SIDES = {"ours": ours, "published": published, "reference": reference}


def batches_of(rows: EncodedSet) -> list[Batch]:
    """The same as a sweep's."""
    return [stack(batch, 0) for batch in by_tokens(rows.rows, BATCH_TOKENS)]


def passes_of(model: PreTrainedModel) -> list[None]:
    """One entry for each forward pass from now on."""
    passes: list[None] = []
    model.base_model.register_forward_pre_hook(lambda *_: passes.append(None))
    return passes


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3].split(","), Path(sys.argv[4]))
