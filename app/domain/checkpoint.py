"""A model's checkpoint by names and byte ranges: which file holds which tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from app.domain.adapter import TensorEntry
from app.domain.architecture import BASE_MODEL_PREFIX


@dataclass(frozen=True, slots=True)
class ShardTensor:
    """One tensor of a checkpoint and the file its bytes are in."""

    file: Path
    entry: TensorEntry


@dataclass(frozen=True)
class Checkpoint:
    """A local Hugging Face checkpoint (one safetensors file, or shards with an index)."""

    folder: Path
    model_type: str | None  # config.json's, e.g. "llama"
    tensors: Mapping[str, ShardTensor]
    digest: str  # SHA-256 (hex) over config.json and every shard's name, size, header and samples

    def weight(self, module: str) -> ShardTensor | None:
        """The weight of a module by its full name, None where there is none.

        Where the checkpoint as a whole was saved with or without the head model's prefix, and the
        module's name is of the other kind, the prefix is taken off or put on.
        """
        return self.tensors.get(f"{module}.weight") or self.tensors.get(self._other_name(module))

    def _other_name(self, module: str) -> str:
        if self._prefix is None:
            return ""
        if self._has_prefix:
            return f"{self._prefix}.{module}.weight"
        return f"{module}.weight".removeprefix(f"{self._prefix}.")

    @property
    def _prefix(self) -> str | None:
        return BASE_MODEL_PREFIX.get(self.model_type or "")

    @cached_property
    def _has_prefix(self) -> bool:
        return any(name.startswith(f"{self._prefix}.") for name in self.tensors)
