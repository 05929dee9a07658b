"""A model's checkpoint by names and byte ranges: which file holds which tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.domain.adapter import TensorEntry


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
