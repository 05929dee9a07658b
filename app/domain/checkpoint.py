"""A model's checkpoint by names and byte ranges: which file holds which tensor."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from app.domain.adapter import TensorEntry
from app.domain.architecture import (
    BASE_MODEL_PREFIX,
    EXPERT_WEIGHTS,
    OUTPUT_HEAD,
    Expert,
    expert_of,
    expert_weights,
    stored_names,
    tied_embedding,
)


@dataclass(frozen=True, slots=True)
class ShardTensor:
    """One tensor of a checkpoint and the file its bytes are in; an expert's weight may be several,
    stacked."""

    file: Path
    entry: TensorEntry
    below: "tuple[ShardTensor, ...]" = ()  # of the same dtype and the same number of columns

    @property
    def shape(self) -> tuple[int, ...]:
        rows = sum(part.entry.shape[0] for part in self.below)
        first, *columns = self.entry.shape or (0,)
        return (first + rows, *columns) if self.below else self.entry.shape


class Remote(Protocol):
    """Where the files of a checkpoint come from that are not all here: their headers are."""

    def fetch(self, tensors: Iterable[ShardTensor]) -> None:
        """Have the bytes of these tensors here."""

    def fetch_tokenizer(self) -> None:
        """Have every small file here."""

    def fetch_all(self) -> None:
        """Have every file here."""


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face checkpoint (one safetensors file, or shards with an index) in a folder."""

    folder: Path
    model_type: str | None  # config.json's, e.g. "llama"
    tensors: Mapping[str, ShardTensor]
    digest: str  # SHA-256 (hex) over config.json and every shard's name, size, header and samples
    quantised: str | None = None  # config.json's quantization_config.quant_method, e.g. "gptq"
    tied: bool | None = None  # config.json's tie_word_embeddings, None where it does not say
    revision: str | None = None  # the commit (SHA), of a hub's
    remote: Remote | None = None  # None where every file is in the folder

    def weight(self, module: str) -> ShardTensor | None:
        """The weight of a module by its full name; None where there is none, or where two tensors
        could be meant.

        The module's own name comes first. Else: the name that transformers saves it under
        (`STORED_AS`); the head model's prefix put on or taken off, where the checkpoint as a whole
        was saved the other way; and for a tied output head the embedding's weight, the last
        because transformers too ties nothing that has a tensor of its own.
        """
        if expert := expert_of(module):
            return self._expert(expert)
        if own := self._weight(module):
            return own
        embedding = tied_embedding(self.model_type, module, self.tied)
        return self._weight(embedding) if embedding else None

    def have(self, tensors: Iterable[ShardTensor]) -> None:
        """To be called before the bytes of tensors are read. Raises what fetching raises."""
        if self.remote:
            self.remote.fetch(part for tensor in tensors for part in (tensor, *tensor.below))

    def have_tokenizer(self) -> None:
        """To be called before any other small file than config.json is read."""
        if self.remote:
            self.remote.fetch_tokenizer()

    def have_all(self) -> None:
        """To be called before the folder is read as a whole."""
        if self.remote:
            self.remote.fetch_all()

    def is_tied(self, module: str) -> bool:
        """Whether the module has no weight of its own here, but the embedding's."""
        embedding = tied_embedding(self.model_type, module, self.tied)
        return embedding is not None and self._weight(module) is None

    def _expert(self, expert: Expert) -> ShardTensor | None:
        """One of a 3-D parameter, else the 2-D tensors that it is stored as."""
        if self.model_type not in EXPERT_WEIGHTS:
            return None
        if stacked := self.tensors.get(expert.parameter):
            return _slice(stacked, expert.number)
        names = expert_weights(self.model_type, expert)
        found = [self.tensors[name] for name in names if name in self.tensors]
        if not found or len(found) != len(names):
            return None
        first, *below = found
        fits = all(_stacks(first.entry, part.entry) for part in below)
        return replace(first, below=tuple(below)) if fits else None

    def is_tied_to_head(self, module: str) -> bool:
        """Whether the output head has no weight of its own here, but this module's."""
        shared = tied_embedding(self.model_type, OUTPUT_HEAD, self.tied) == module
        return shared and self._weight(OUTPUT_HEAD) is None

    def part(self, module: str, part: str) -> ShardTensor | None:
        """A module's tensor of that name, e.g. "qweight", as `weight` finds its weight; a tied
        head has none of its own."""
        if own := self.tensors.get(f"{module}.{part}"):
            return own
        others = {f"{name}.{part}" for name in stored_names(self.model_type, module)}
        found = (others | {self._other_name(module, part)}) & self.tensors.keys()
        return self.tensors[found.pop()] if len(found) == 1 else None

    def _weight(self, module: str) -> ShardTensor | None:
        return self.part(module, "weight")

    def _other_name(self, module: str, part: str) -> str:
        if self._prefix is None:
            return ""
        if self._has_prefix:
            return f"{self._prefix}.{module}.{part}"
        return f"{module}.{part}".removeprefix(f"{self._prefix}.")

    @property
    def _prefix(self) -> str | None:
        return BASE_MODEL_PREFIX.get(self.model_type or "")

    @cached_property
    def _has_prefix(self) -> bool:
        return any(name.startswith(f"{self._prefix}.") for name in self.tensors)


def _slice(stacked: ShardTensor, index: int) -> ShardTensor | None:
    """The bytes of one expert, which lie together."""
    entry = stacked.entry
    if len(entry.shape) != 3 or index >= entry.shape[0]:
        return None
    size = entry.size_bytes // entry.shape[0]
    begin = entry.begin + index * size
    name = f"{entry.name}[{index}]"
    one = replace(entry, name=name, shape=entry.shape[1:], begin=begin, end=begin + size)
    return replace(stacked, entry=one)


def _stacks(first: TensorEntry, other: TensorEntry) -> bool:
    """Whether the rows of two tensors make one weight."""
    two = len(first.shape) == len(other.shape) == 2
    return two and first.dtype == other.dtype and first.shape[1] == other.shape[1]
