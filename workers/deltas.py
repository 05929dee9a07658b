"""Full weights that bypass LoRA (`modules_to_save`, trained tokens, biases), taken as what they
change: `D = W_adapter - W_chat`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from app.domain.adapter import FullWeight
from app.domain.alignment import AlignedModule
from app.intake.model_modules import module_of
from app.intake.preflight import has_vocabulary_rows
from workers.checkpoints import ModelPair, finite, map_tensor

CHUNK_ELEMENTS = 1 << 25  # projected at once: 128 MiB in float32
BLOCK_ELEMENTS = 1 << 22  # summed and rounded at once
EVERY = slice(None)


@dataclass(frozen=True)
class Delta:
    """`D` of one full weight. Where it is stored by columns, a stored row is a column of `D`."""

    weight: FullWeight
    module: AlignedModule  # whose `C` is applied
    ours: Tensor  # the adapter's, (rows, columns) as stored
    chat: Tensor  # the chat model's, of the same shape
    by_columns: bool

    @property
    def dtype(self) -> torch.dtype:
        """What `D` is taken in: float32, or float64 where either is stored in it."""
        is_wide = torch.float64 in (self.ours.dtype, self.chat.dtype)
        return torch.float64 if is_wide else torch.float32

    @property
    def shape(self) -> tuple[int, int]:
        """`(d_out, n)` of `D`."""
        rows, columns = self.ours.shape
        return (columns, rows) if self.by_columns else (rows, columns)

    def stored(self, rows: slice, columns: slice = EVERY) -> Tensor:
        """Elements of `D` where they are stored."""
        ours, chat = (each[rows, columns].to(self.dtype) for each in (self.ours, self.chat))
        return ours - chat

    def turned(self, stored: Tensor) -> Tensor:
        """Stored elements as columns of `D`; or the other way round."""
        return stored.T if self.by_columns else stored

    def blocks(self) -> Iterator[slice]:
        """Stored rows, for sums."""
        rows, columns = self.ours.shape
        return slices(rows, BLOCK_ELEMENTS // columns)

    def chunks(self) -> Iterator[tuple[slice, slice]]:
        """Where columns of `D` are stored, for the projector."""
        rows, columns = self.ours.shape
        if self.by_columns:
            return ((at, EVERY) for at in slices(rows, CHUNK_ELEMENTS // columns))
        return ((EVERY, at) for at in slices(columns, CHUNK_ELEMENTS // rows))

    def squared_norm(self) -> float:
        """`||D||_F^2`, in float64. Raises NonFiniteTensor."""
        squared = 0.0
        for at in self.blocks():
            finite(self.ours[at].float(), self.weight.entry.label, "adapter")
            finite(self.chat[at].float(), self.weight.name, "chat model")
            squared += inner(self.stored(at), self.stored(at))
        return squared


def slices(count: int, size: int) -> Iterator[slice]:
    step = max(1, size)
    return (slice(begin, min(count, begin + step)) for begin in range(0, count, step))


def inner(x: Tensor, y: Tensor) -> float:
    """`<x, y>_F` in float64."""
    return float((x.double() * y.double()).sum())


def delta_of(weight: FullWeight, source: int, models: ModelPair) -> Delta | str:
    """The full weight's delta; or why it has none that a projector could be applied to.

    `source` is the descriptor of the adapter's file.
    """
    name, _, part = weight.name.rpartition(".")
    module = module_of(models.chat.checkpoint, name)
    if module is None or not _has_difference(module, models):
        return "the models have no pair of 2-D weights here"
    ours = map_tensor(source, weight.entry)
    if part == "bias":
        return _of_bias(weight, module, ours, models)
    stored = models.chat.weight(name)
    chat = stored.rows(0, stored.shape[0])
    found = Delta(weight, module, ours, chat, models.is_transposed(module))
    return _of_tokens(found) if weight.tokens else _checked(found)


def _has_difference(module: AlignedModule, models: ModelPair) -> bool:
    if module_of(models.base.checkpoint, module.name) is None:
        return False
    chat, base = (model.weight(module.name).shape for model in (models.chat, models.base))
    return chat[1:] == base[1:] if has_vocabulary_rows(module) else chat == base


def _of_bias(
    weight: FullWeight, module: AlignedModule, ours: Tensor, models: ModelPair
) -> Delta | str:
    chat = models.chat.bias(module.name)
    if chat is None:
        return "the chat model has no such bias"
    if ours.shape != (module.d_out,) or ours.shape != chat.shape:
        return "it has another shape than the chat model's"
    return Delta(weight, module, ours[None], chat[None], by_columns=True)


def _of_tokens(found: Delta) -> Delta | str:
    """The trained rows of an embedding."""
    if not found.by_columns:
        return "the projector would spread it over the rows of all tokens"
    tokens, vocabulary = found.weight.tokens, found.chat.shape[0]
    if max(tokens) >= vocabulary:
        return f"the chat model has {vocabulary} tokens"
    return _checked(replace(found, chat=found.chat[torch.tensor(tokens)]))


def _checked(found: Delta) -> Delta | str:
    if found.ours.shape != found.chat.shape:
        return "it has another shape than the chat model's"
    return found
