"""A LoRA adapter as intake leaves it: names, shapes and byte ranges, no tensor values.

Notation is PEFT's: the update of a module is `dW = scaling * B @ A`, `A` is `(r, d_in)`, `B` is
`(d_out, r)`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Literal

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
README_FILE = "README.md"
REPORT_FILE = "safety_report.json"
PATCHED_FILES = (CONFIG_FILE, WEIGHTS_FILE, REPORT_FILE, README_FILE)  # in the archive's order

DTYPE_BYTES: Mapping[str, int] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The float dtypes we compute with, by their safetensors names, and the bytes of one element."""


@dataclass(frozen=True, slots=True)
class Part:
    """One expert's share of a tensor that holds the factors of `count` experts: along axis 0 its
    rows lie together, along axis 1 it has the columns `index, index + count, ...`."""

    axis: int
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a safetensors file: where its bytes lie, not what they are."""

    name: str
    dtype: str  # safetensors name, e.g. "BF16"
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int  # bytes from the start of the file, exclusive
    part: Part | None = None  # where set, `shape` is the part's, and the bytes are the whole's

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin

    @property
    def label(self) -> str:
        """The name for messages."""
        return f"{self.name}, expert {self.part.index}" if self.part else self.name

    @property
    def whole(self) -> "TensorEntry":
        """The tensor as the file has it."""
        if self.part is None:
            return self
        sizes = [
            size * (self.part.count if axis == self.part.axis else 1)
            for axis, size in enumerate(self.shape)
        ]
        return replace(self, shape=tuple(sizes), part=None)


LayerType = Literal["linear", "embedding"]


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One adapted module, joined by its full name in the base model.

    Of an embedding (PEFT's `lora_embedding_A`, `lora_embedding_B`) the output side is the width of
    the model: `d_in` is the vocabulary, and the weight is stored `(d_in, d_out)`.
    """

    name: str  # e.g. "model.layers.0.self_attn.q_proj", of an expert "...experts.down_proj.3"
    rank: int
    alpha: float
    scaling: float  # alpha / r, or alpha / sqrt(r) with rsLoRA
    lora_a: TensorEntry  # (r, d_in)
    lora_b: TensorEntry  # (d_out, r)
    layer_type: LayerType = "linear"
    bias: TensorEntry | None = None  # (d_out,), lora_bias: the update's own bias is s * bias
    magnitude: TensorEntry | None = None  # (d_out,), DoRA's

    @property
    def d_in(self) -> int:
        return self.lora_a.shape[1]

    @property
    def d_out(self) -> int:
        return self.lora_b.shape[0]


@dataclass(frozen=True, slots=True)
class FullWeight:
    """A whole parameter that the adapter replaces, so that no projector sees it."""

    name: str  # of the parameter in the model, e.g. "lm_head.weight"
    entry: TensorEntry
    feature: str  # PEFT's field that put it there, e.g. "modules_to_save"
    tokens: tuple[int, ...] = ()  # the rows it replaces, where it does not replace them all


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A stored file: its bytes are named by their SHA-256."""

    sha256: str  # hex
    size_bytes: int


@dataclass(frozen=True)
class AdapterManifest:
    """A validated adapter: nothing after intake looks at raw bytes or raw JSON again."""

    files: Mapping[str, FileEntry]  # by name: CONFIG_FILE, WEIGHTS_FILE, perhaps README_FILE
    config: Mapping[str, object]  # what we write back: known keys only, in the order they came
    dropped_keys: tuple[str, ...]  # top-level config keys that we do not write back
    modules: tuple[LoraModule, ...]  # in module order, see `module_order`
    base_model_name: str | None  # config's base_model_name_or_path, shown, never opened
    full_weights: tuple[FullWeight, ...] = ()

    @property
    def id(self) -> str:
        return adapter_id(self.files)


@dataclass(frozen=True)
class StoredModule:
    """What the records keep of a module: enough to check it against a model without its bytes."""

    name: str
    rank: int
    alpha: float
    d_out: int
    d_in: int
    dtype: str
    layer_type: LayerType = "linear"
    dora: bool = False

    @classmethod
    def of(cls, module: LoraModule) -> "StoredModule":
        return cls(
            name=module.name,
            rank=module.rank,
            alpha=module.alpha,
            d_out=module.d_out,
            d_in=module.d_in,
            dtype=module.lora_b.dtype,
            layer_type=module.layer_type,
            dora=module.magnitude is not None,
        )


@dataclass(frozen=True)
class StoredAdapter:
    """An accepted adapter as the records know it."""

    id: str
    created_at: datetime
    files: Mapping[str, FileEntry]
    modules: tuple[StoredModule, ...]
    dropped_keys: tuple[str, ...]
    base_model_name: str | None
    peft_type: str = "LORA"

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


@dataclass(frozen=True)
class ListedAdapter:
    """An adapter in a listing: without its modules, which may be thousands."""

    id: str
    created_at: datetime
    size_bytes: int
    modules: int
    base_model_name: str | None


def adapter_id(files: Mapping[str, FileEntry]) -> str:
    """SHA-256 (hex) over the files' names and digests: the same content has the same id."""
    listing = {name: files[name].sha256 for name in sorted(files)}
    return hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()


def module_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key for module names: numbers compare as numbers, so layer 2 comes before layer 10."""
    return tuple(map(_part_order, name.split(".")))


@lru_cache(maxsize=4096)  # because 100,000 experts share their parts, and would each hold copies
def _part_order(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part)


def layer_of(module: str) -> int | None:
    """The first number in a module's path: `model.layers.3.mlp.up_proj` -> 3; None without one."""
    return next((int(p) for p in module.split(".") if p.isascii() and p.isdigit()), None)


def kind_of(module: str) -> str:
    """The last part of a module's path that is not a number: `...self_attn.q_proj` -> `q_proj`."""
    return next((p for p in reversed(module.split(".")) if not p.isdigit()), module)
