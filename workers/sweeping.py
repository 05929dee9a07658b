"""One sweep of a chat model over a data set: the subspace in which each module's outputs lie at
response tokens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from app.alignment.activations import NoPositions, Sweep
from app.alignment.moments import Subspace
from app.domain.salora_errors import OutOfMemory, TargetsRefused
from workers.encoding import Batch, EncodedSet, by_tokens, stack
from workers.language_models import is_out_of_memory

BATCH_TOKENS = 4096
BUDGET_BYTES = 8 << 30  # of second moments; beyond it they are sketched

OnStep = Callable[[int, int, str, Mapping[str, object]], None]
"""(done, total, "batch" | "module" | "step", what there is to say of it); may raise `Stopped`."""


@dataclass(frozen=True)
class Swept:
    subspaces: Mapping[str, Subspace]
    sketched: frozenset[str]
    warnings: list[str] = field(default_factory=list)


def sweep(
    model: PreTrainedModel,
    modules: Mapping[str, nn.Module],
    rows: EncodedSet,
    rank: int,
    on_step: OnStep,
    *,
    batch_tokens: int = BATCH_TOKENS,
    budget_bytes: int = BUDGET_BYTES,
) -> Swept:
    """Each row goes through the model once. Where memory is too small the sweep starts anew with
    batches of half the size. Raises OutOfMemory, TargetsRefused, and what `on_step` raises."""
    warnings: list[str] = []
    while True:
        try:
            seen = Sweep(modules, rank, budget_bytes)
            done = _pass(model, seen, rows, on_step, batch_tokens)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            batch_tokens = _half(batch_tokens, rows, model)
            warnings.append(f"Memory was too small: batches of {batch_tokens} tokens were used.")
    return Swept(_decomposed(seen, done, on_step), frozenset(seen.sketched), warnings)


def _half(batch_tokens: int, rows: EncodedSet, model: PreTrainedModel) -> int:
    """Raises OutOfMemory where a batch has one row already."""
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    smaller = min(batch_tokens, rows.tokens) // 2
    if smaller < rows.longest:
        sizes = f"one row of {rows.longest} tokens, {model.num_parameters()} parameters"
        raise OutOfMemory(what="a batch of one row", device=str(model.device), sizes=sizes)
    return smaller


def _pass(
    model: PreTrainedModel, seen: Sweep, rows: EncodedSet, on_step: OnStep, batch_tokens: int
) -> int:
    """The number of batches."""
    batches = by_tokens(rows.rows, batch_tokens)
    for i, batch in enumerate(batches, 1):
        forward(model, stack(batch, 0), seen)
        told = {"rows": len(batch), "tokens": sum(len(row) for row in batch)}
        on_step(i, len(batches) + len(seen.modules), "batch", told)
    return len(batches)


def forward(model: PreTrainedModel, batch: Batch, seen: Sweep) -> None:
    """Through the model without its head, whose logits nobody needs."""
    device = model.device
    try:
        with seen.watching(batch.is_response.to(device)):
            model.base_model(
                input_ids=batch.ids.to(device),
                attention_mask=batch.attention.to(device),
                use_cache=False,
            )
    except NoPositions as error:
        raise TargetsRefused(modules=[error.module], reason=str(error)) from error


def _decomposed(seen: Sweep, before: int, on_step: OnStep) -> dict[str, Subspace]:
    found: dict[str, Subspace] = {}
    for i, name in enumerate(seen.modules, 1):
        try:
            found[name] = seen.subspace(name)
        except ValueError as error:
            raise TargetsRefused(modules=[name], reason=str(error)) from error
        told: dict[str, Any] = {"module": name, "energy": found[name].energy}
        on_step(before + i, before + len(seen.modules), "module", told)
    return found
