"""Does the adapter fit the two models? By names and shapes, before any tensor is read."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from app.domain.adapter import DTYPE_BYTES
from app.domain.alignment import Shaped
from app.domain.architecture import expert_of, is_output_head, is_stored_transposed
from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.errors import (
    AdapterShapesDiffer,
    CheckpointRefused,
    ModelShapesDiffer,
    ModulesNotInModel,
)


class Fitted(Shaped, Protocol):
    """What is compared with a model."""

    @property
    def dora(self) -> bool: ...


BASE, CHAT = "base_model", "chat_model"
PACKED = ("qweight", "weight_packed", "weight_quantized", "blocks")
"""What GPTQ and AWQ, compressed-tensors, and others call a weight that they have packed."""


def check_fit(
    modules: Sequence[Fitted], base: Checkpoint, chat: Checkpoint, base_id: str, chat_id: str
) -> None:
    """Every module's `<module>.weight` is in both models, in one shape, and the adapter fits it.

    Vocabularies may be of different sizes (tokens were added): an embedding and the output head
    are compared by the rows that all have. With DoRA the adapter's is the chat model's, because its
    magnitudes are norms over all of it.
    Raises CheckpointRefused, ModulesNotInModel, ModelShapesDiffer, AdapterShapesDiffer.
    """
    if base.model_type != chat.model_type:
        reason = f"its model_type is {chat.model_type}, the base model's is {base.model_type}"
        raise CheckpointRefused(field=CHAT, model=chat_id, file="config.json", reason=reason)
    for field, model_id, checkpoint in ((BASE, base_id, base), (CHAT, chat_id, chat)):
        _check_weights(modules, checkpoint, field, model_id)
    if differing := _differing(modules, base, lambda module: _shape(chat, module)):
        raise ModelShapesDiffer(modules=differing)
    if differing := _differing(modules, base, lambda module: _expected(base, module)):
        raise AdapterShapesDiffer(field=BASE, model=base_id, modules=differing)
    for field, model_id, checkpoint in ((BASE, base_id, base), (CHAT, chat_id, chat)):
        if differing := [*_more_experts(modules, checkpoint)]:
            raise AdapterShapesDiffer(field=field, model=model_id, modules=differing)
    dora = [module for module in modules if module.dora]
    if differing := _differing(dora, chat, lambda module: _expected(chat, module), whole=True):
        raise AdapterShapesDiffer(field=CHAT, model=chat_id, modules=differing)


def check_fit_chat(modules: Sequence[Fitted], chat: Checkpoint, chat_id: str) -> None:
    """As `check_fit`, where no base model plays a part. Raises CheckpointRefused,
    ModulesNotInModel, AdapterShapesDiffer."""
    _check_weights(modules, chat, CHAT, chat_id)
    differing = _differing(modules, chat, lambda module: _expected(chat, module), whole=True)
    if differing := [*differing, *_more_experts(modules, chat)]:
        raise AdapterShapesDiffer(field=CHAT, model=chat_id, modules=differing)


def _check_weights(
    modules: Sequence[Fitted], checkpoint: Checkpoint, field: str, model_id: str
) -> None:
    missing = []
    for module in modules:
        weight = checkpoint.weight(module.name) or _packed(checkpoint, module.name)
        if weight is None:
            missing.append(module.name)
        elif reason := _weight_fault(weight, checkpoint):
            file = weight.file.name
            raise CheckpointRefused(field=field, model=model_id, file=file, reason=reason)
    if missing:
        raise ModulesNotInModel(field=field, model=model_id, modules=missing)


def _more_experts(modules: Sequence[Fitted], model: Checkpoint) -> Iterator[str]:
    """Each parameter of which the model has more experts than the adapter; that it has fewer is a
    module without a weight."""
    experts = filter(None, (expert_of(module.name) for module in modules))
    for parameter, count in Counter(expert.parameter for expert in experts).items():
        if model.weight(f"{parameter}.{count}"):
            yield f"{parameter}: the adapter has {count} experts, the model has more"


def _packed(checkpoint: Checkpoint, module: str) -> ShardTensor | None:
    """A module's weight as quantisers pack it."""
    packed = (checkpoint.part(module, part) for part in PACKED)
    return next(filter(None, packed), None)


def _weight_fault(weight: ShardTensor, checkpoint: Checkpoint) -> str | None:
    """What keeps a weight from being computed with."""
    entry = weight.entry
    if entry.dtype not in DTYPE_BYTES:
        how = f" by {checkpoint.quantised}" if checkpoint.quantised else ""
        return (
            f"it is quantised{how}: tensor {entry.name} has dtype {entry.dtype}, not one of "
            f"{', '.join(DTYPE_BYTES)}; give the model in full precision"
        )
    if len(entry.shape) != 2:
        return f"tensor {entry.name} has shape {list(entry.shape)}, not two axes"
    return None


def _differing(
    modules: Sequence[Fitted],
    base: Checkpoint,
    other: Callable[[Fitted], tuple[int, ...]],
    *,
    whole: bool = False,
) -> list[str]:
    """Each module whose weight in `base` has another shape than `other` says; unless `whole`, the
    rows of a vocabulary may differ."""

    def compared(module: Fitted, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[1:] if has_vocabulary_rows(module) and not whole else shape

    return [
        f"{module.name}: {list(_shape(base, module))} against {list(other(module))}"
        for module in modules
        if compared(module, _shape(base, module)) != compared(module, other(module))
    ]


def has_vocabulary_rows(module: Shaped) -> bool:
    """Whether the weight's stored rows are tokens."""
    return module.layer_type == "embedding" or is_output_head(module.name)


def _expected(base: Checkpoint, module: Fitted) -> tuple[int, ...]:
    """The stored shape that the adapter's `(d_out, d_in)` update calls for."""
    if module.layer_type == "embedding" or is_stored_transposed(base.model_type, module.name):
        return module.d_in, module.d_out
    return module.d_out, module.d_in


def _shape(checkpoint: Checkpoint, module: Fitted) -> tuple[int, ...]:
    weight = checkpoint.weight(module.name)
    return weight.shape if weight else ()
