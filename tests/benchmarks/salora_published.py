"""SaLoRA's statistics the published way, in a few lines of our own, for `salora` to measure.

As in the authors' script: one sweep of the data set for each decoder layer, in which the layer's
targets keep their inputs at response tokens; of each, `Y = X W^T` whole in float32, and
`torch.svd_lowrank` of it. Kinder than the script: rows go through in batches, without the head.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workers.encoding import Batch

ITERATIONS = 30
Modules = Mapping[str, nn.Module]  # by full name
Kept = dict[str, list[Tensor]]  # full name -> (tokens, d_in) of each batch


def bases(
    model: PreTrainedModel, modules: Modules, batches: Sequence[Batch], rank: int
) -> dict[str, Tensor]:
    """`V_s` `(d_out, rank)` of the modules of one layer."""
    kept, found = inputs(model, modules, batches), {}
    for name, module in modules.items():
        y = torch.cat(kept.pop(name)) @ module.weight.T
        found[name] = torch.svd_lowrank(y, q=rank, niter=ITERATIONS)[2]
    return found


def inputs(model: PreTrainedModel, modules: Modules, batches: Sequence[Batch]) -> Kept:
    """Of one sweep, at response tokens."""
    kept: Kept = {name: [] for name in modules}
    for batch in batches:
        with keeping(modules, kept, batch.is_response), torch.no_grad():
            model.base_model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False)
    return kept


@contextmanager
def keeping(modules: Modules, kept: Kept, mask: Tensor) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(lambda _, args, n=name: kept[n].append(args[0][mask]))
        for name, module in modules.items()
    ]
    yield
    for handle in handles:
        handle.remove()
