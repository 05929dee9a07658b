"""Where a module's alignment comes from: computed from the two models' weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.alignment.blocks import Scratch
from app.alignment.projection import Applied, DifferenceNotFinite, apply
from app.domain.adapter import LoraModule
from app.domain.errors import NonFiniteTensor
from app.domain.method import Projection
from workers.checkpoints import ModelPair, read_tensor


@dataclass(frozen=True)
class Alignments:
    """Applies the projectors of one pair of models."""

    models: ModelPair
    scratch: Scratch

    def apply(self, module: LoraModule, columns: Tensor, projection: Projection) -> Applied:
        """`C @ columns` for `columns` `(d_out, n)`, which may be several adapters' side by side.

        Raises NonFiniteTensor naming the model's tensor that holds NaN or infinity.
        """
        try:
            return apply(self.models.difference(module), columns, projection, self.scratch)
        except DifferenceNotFinite:
            raise _culprit(self.models, module.name) from None


def _culprit(models: ModelPair, module: str) -> NonFiniteTensor:
    """Which of the two models' weights holds the NaN or infinity."""

    for source, model in (("chat model", models.chat), ("base model", models.base)):
        weight = model.weight(module)
        if not bool(torch.isfinite(read_tensor(weight.descriptor, weight.entry)).all()):
            return NonFiniteTensor(tensor=weight.name, source=source)
    return NonFiniteTensor(tensor=f"{module}.weight", source="difference of chat and base model")
