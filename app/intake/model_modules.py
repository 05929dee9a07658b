"""The modules of two models, by the checkpoints' own tensor names: for work without an adapter."""

from collections.abc import Iterator, Sequence

from app.domain.adapter import DTYPE_BYTES, module_order
from app.domain.alignment import AlignedModule
from app.domain.architecture import is_embedding, is_output_head, is_stored_transposed
from app.domain.checkpoint import Checkpoint
from app.domain.errors import InvalidField, ModulesNotInModel
from app.domain.salora_errors import TargetsRefused
from app.intake.preflight import CHAT, check_fit

WEIGHT = ".weight"


def named_modules(
    names: Sequence[str], base: Checkpoint, chat: Checkpoint, base_id: str, chat_id: str
) -> list[AlignedModule]:
    """The modules that `names` mean, each a full name or the end of one (`q_proj`), as PEFT reads
    `target_modules`; in module order.

    Raises what `check_fit` raises, also where a name means nothing.
    """
    ending = _by_end(names, chat)
    found: dict[str, AlignedModule] = {}
    for name in names:
        whole = module_of(chat, name)
        meant = [whole] if whole else ending[name]
        if not meant:
            raise ModulesNotInModel(field=CHAT, model=chat_id, modules=[name])
        found |= {module.name: module for module in meant}
    return _checked(list(found.values()), base, chat, base_id, chat_id)


def targeted_modules(names: Sequence[str], chat: Checkpoint) -> list[AlignedModule]:
    """The linear modules that `target_modules` mean, as PEFT reads it: each name is a full name or
    what follows a dot in one; in module order.

    Raises TargetsRefused naming those that mean no weight of two axes, or an embedding or head.
    """
    ending = _by_end(names, chat)
    meant = {name: ending[name] or _whole(chat, name) for name in names}
    if lost := [name for name in names if not meant[name]]:
        raise TargetsRefused(modules=lost, reason="the chat model has no such linear module")
    found = {module.name: module for modules in meant.values() for module in modules}
    if tokens := [name for name, module in found.items() if _is_of_tokens(module)]:
        reason = "an embedding or output head has no safety module"
        raise TargetsRefused(modules=tokens, reason=reason)
    return sorted(found.values(), key=lambda module: module_order(module.name))


def _is_of_tokens(module: AlignedModule) -> bool:
    return module.layer_type == "embedding" or is_output_head(module.name)


def _whole(checkpoint: Checkpoint, name: str) -> list[AlignedModule]:
    """The module of this very name, where the checkpoint has its weight under another."""
    module = module_of(checkpoint, name)
    return [module] if module else []


def shared_modules(
    base: Checkpoint, chat: Checkpoint, base_id: str, chat_id: str
) -> list[AlignedModule]:
    """Every 2-D weight that both models have in one shape, embeddings and output heads aside; in
    module order. Raises InvalidField where there is none, and what `check_fit` raises."""
    found = [
        module
        for module in _of_checkpoint(chat)
        if module.layer_type == "linear"
        and not is_output_head(module.name)
        and module_of(base, module.name) == module
    ]
    if not found:
        raise InvalidField(field=CHAT, reason="has no module in common with base_model")
    return _checked(found, base, chat, base_id, chat_id)


def _by_end(names: Sequence[str], checkpoint: Checkpoint) -> dict[str, list[AlignedModule]]:
    """The modules that each name is the end of. One pass over the tensors, of which a model of many
    experts has 50,000, however many names there are."""
    found: dict[str, list[AlignedModule]] = {name: [] for name in names}
    for module in _of_checkpoint(checkpoint):
        parts = module.name.split(".")
        for begin in range(len(parts)):
            end = ".".join(parts[begin:])
            if end in found:
                found[end].append(module)
    return found


def _checked(
    modules: list[AlignedModule], base: Checkpoint, chat: Checkpoint, base_id: str, chat_id: str
) -> list[AlignedModule]:
    check_fit(modules, base, chat, base_id, chat_id)
    return sorted(modules, key=lambda module: module_order(module.name))


def _of_checkpoint(checkpoint: Checkpoint) -> Iterator[AlignedModule]:
    for name in checkpoint.tensors:
        module = module_of(checkpoint, name.removesuffix(WEIGHT))
        if name.endswith(WEIGHT) and module:
            yield module


def module_of(checkpoint: Checkpoint, name: str) -> AlignedModule | None:
    """The module whose weight a projector could be made of; None where there is none."""
    weight = checkpoint.weight(name)
    if weight is None or len(weight.entry.shape) != 2 or weight.entry.dtype not in DTYPE_BYTES:
        return None
    rows, columns = weight.entry.shape
    if is_embedding(name):
        return AlignedModule(name, columns, rows, "embedding")
    if is_stored_transposed(checkpoint.model_type, name):
        return AlignedModule(name, columns, rows)
    return AlignedModule(name, rows, columns)
