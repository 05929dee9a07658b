"""What must hold of every manifest that the gate gives out, whatever was sent."""

import json
import math
from collections.abc import Iterator

from safetensors import deserialize

from app.domain.adapter import (
    CONFIG_FILE,
    DTYPE_BYTES,
    WEIGHTS_FILE,
    AdapterManifest,
    LoraModule,
    TensorEntry,
)
from app.intake.limits import UPLOAD_LIMITS
from app.intake.lora_config import parse_config


def check_manifest(manifest: AdapterManifest, config: bytes, weights: bytes) -> None:
    """Raises AssertionError."""
    assert manifest.modules
    names = [module.name for module in manifest.modules]
    assert len(names) == len(set(names))
    for module in manifest.modules:
        _check_module(module)
    entries = list({entry.name: entry for entry in _entries(manifest)}.values())
    _check_bytes(entries, len(weights))
    _check_against_the_library(entries, weights)
    assert manifest.files[WEIGHTS_FILE].size_bytes == len(weights)
    assert manifest.files[CONFIG_FILE].size_bytes == len(config)
    assert dict(parse_config(json.dumps(manifest.config).encode()).clean) == manifest.config


def _check_module(module: LoraModule) -> None:
    assert 1 <= module.rank <= UPLOAD_LIMITS.rank
    assert module.lora_a.shape == (module.rank, module.d_in)
    assert module.lora_b.shape == (module.d_out, module.rank)
    assert math.isfinite(module.scaling)
    assert module.scaling > 0
    for vector in (module.bias, module.magnitude):
        assert vector is None or vector.shape == (module.d_out,)


def _entries(manifest: AdapterManifest) -> Iterator[TensorEntry]:
    """Each tensor of the file, as the file has it; a tensor of experts comes once for each."""
    for module in manifest.modules:
        for entry in (module.lora_a, module.lora_b, module.bias, module.magnitude):
            if entry is not None:
                yield entry.whole
    for weight in manifest.full_weights:
        yield weight.entry


def _check_bytes(entries: list[TensorEntry], size_bytes: int) -> None:
    """All bytes after the header belong to one tensor that somebody will look at."""
    at = min(entry.begin for entry in entries)
    for entry in sorted(entries, key=lambda entry: entry.begin):
        assert entry.begin == at
        assert entry.size_bytes == math.prod(entry.shape) * DTYPE_BYTES[entry.dtype] > 0
        at = entry.end
    assert at == size_bytes


def _check_against_the_library(entries: list[TensorEntry], weights: bytes) -> None:
    """safetensors itself, which the worker opens the file with, sees the same tensors."""
    theirs = {name: (said["dtype"], tuple(said["shape"]), bytes(said["data"]))
              for name, said in deserialize(weights)}  # fmt: skip
    assert theirs == {
        entry.name: (entry.dtype, entry.shape, weights[entry.begin : entry.end])
        for entry in entries
    }
