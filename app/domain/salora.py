"""What SaLoRA's jobs are asked for (Li et al., ICLR 2025; arXiv 2501.01765).

A *safety module* is `V_s` of each target module: the directions in which the chat model's outputs
go while it refuses. A *kit* is where a training starts: an adapter's `A0` and `B0`, and the safety
module that keeps it from moving along `V_s`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, get_args

from app.domain.adapter import FileEntry
from app.domain.errors import InvalidField

Dtype = Literal["auto", "float32", "bfloat16"]
"""In which the model runs; `auto` is its checkpoint's own. Statistics are never in less than
float32."""
Initialisation = Literal["salora", "zero"]
"""`salora`: `B0 A0` from the chat weight's truncated SVD, projected on the task's subspace where
task data is given. `zero`: `B` is zero and `A` random, as PEFT starts a LoRA."""
PartKind = Literal["safety_module", "kit"]

ALGORITHM = "1"  # of the sweep and the start: another number, and everything is made anew
PART_NAMES: Mapping[PartKind, str] = {"safety_module": "safety module", "kit": "kit"}
"""As people read them."""

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
INITIALISATIONS: tuple[Initialisation, ...] = get_args(Initialisation)
DEFAULT_TARGETS = ("q_proj", "v_proj")  # the paper's code
MAX_RANK = 4096
MAX_TOKENS = 1 << 20
MAX_TARGETS = 1000
ALPHAS = (1e-6, 1e6)  # as the gate takes an adapter's, so that what was trained can be exported


def _within(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN is not
        raise InvalidField(field=field, reason=f"must lie in [{low:g}, {high:g}]")


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidField(field=field, reason=f"must be one of {', '.join(known)}")


@dataclass(frozen=True)
class Encoding:
    """How a conversation becomes tokens."""

    chat_template: bool = True  # False: prompt and response as raw text, one after the other
    max_length: int = 1024  # tokens of a conversation; what is beyond is cut off

    def __post_init__(self) -> None:
        _within("max_length", self.max_length, 2, MAX_TOKENS)


@dataclass(frozen=True)
class SafetyModuleRecipe:
    """`V_s` of each target module, from conversations in which the chat model refuses."""

    dataset: str  # StoredDataset.id
    target_modules: tuple[str, ...] = DEFAULT_TARGETS  # full names or ends of names, as in PEFT
    rank: int = 32
    encoding: Encoding = Encoding()
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        _within("rank", self.rank, 1, MAX_RANK)
        _one_of("dtype", self.dtype, DTYPES)
        if not 1 <= len(self.target_modules) <= MAX_TARGETS:
            raise InvalidField(field="target_modules", reason=f"must be 1 to {MAX_TARGETS} names")


@dataclass(frozen=True)
class InitRecipe:
    """A kit of a safety module, with or without a task's data."""

    safety_module: str  # Part.id
    dataset: str | None = None  # the task's
    rank: int = 16
    alpha: float | None = None  # the rank, if unset: a scaling of 1
    use_rslora: bool = False
    task_rank: int = 32
    initialisation: Initialisation = "salora"
    encoding: Encoding = Encoding()
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        _within("rank", self.rank, 1, MAX_RANK)
        _within("task_rank", self.task_rank, 1, MAX_RANK)
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("initialisation", self.initialisation, INITIALISATIONS)
        if self.alpha is not None:
            _within("alpha", self.alpha, *ALPHAS)
        if self.dataset is not None and self.initialisation == "zero":
            raise InvalidField(field="dataset", reason="the zero initialisation takes no task data")

    @property
    def resolved_alpha(self) -> float:
        return float(self.rank) if self.alpha is None else self.alpha


@dataclass(frozen=True)
class TrainRecipe:
    """A training of a kit's adapter on a task's conversations."""

    kit: str  # Part.id
    dataset: str
    epochs: float = 1.0
    learning_rate: float = 1e-4
    batch_size: int = 16  # conversations of one step of one device
    gradient_accumulation_steps: int = 1
    weight_decay: float = 0.0
    warmup_steps: int = 0
    seed: int = 0
    gradient_checkpointing: bool = False
    checkpoint_steps: int = 50  # steps between two checkpoints that a killed job goes on from
    export_rank: int | None = None  # of the result; unset: exact
    plain_lora: bool = False  # the same without safety module and initialisation, to compare with
    encoding: Encoding = Encoding()
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        _within("epochs", self.epochs, 1e-3, 1000)
        _within("learning_rate", self.learning_rate, 1e-9, 10)
        _within("batch_size", self.batch_size, 1, 4096)
        _within("gradient_accumulation_steps", self.gradient_accumulation_steps, 1, 4096)
        _within("weight_decay", self.weight_decay, 0, 10)
        _within("warmup_steps", self.warmup_steps, 0, 1_000_000)
        _within("seed", self.seed, 0, 2**32 - 1)
        _within("checkpoint_steps", self.checkpoint_steps, 1, 1_000_000)
        _one_of("dtype", self.dtype, DTYPES)
        if self.export_rank is not None:
            _within("export_rank", self.export_rank, 1, MAX_RANK)


@dataclass(frozen=True)
class ExportRecipe:
    """A trained adapter and its kit -> an ordinary LoRA on the chat model's own weights."""

    kit: str
    rank: int | None = None  # recompressed to it; unset: twice the kit's rank, and exact

    def __post_init__(self) -> None:
        if self.rank is not None:
            _within("rank", self.rank, 1, MAX_RANK)


Recipe = SafetyModuleRecipe | InitRecipe | TrainRecipe | ExportRecipe


@dataclass(frozen=True, slots=True)
class PartModule:
    """A module of a safety module (its `V_s` `(d_out, rank)`) or of a kit (its adapter's rank)."""

    name: str  # full name in the chat model
    d_out: int
    d_in: int
    rank: int


@dataclass(frozen=True)
class ListedPart:
    """A part in a listing: without its modules."""

    kind: PartKind
    id: str
    created_at: datetime
    chat_model: str
    chat_digest: str
    size_bytes: int
    modules: int


@dataclass(frozen=True)
class Part:
    """A safety module or a kit as the records know it. Its id says what it was made of, so the same
    question finds it again."""

    kind: PartKind
    id: str  # SHA-256 (hex) over everything it depends on
    created_at: datetime
    chat_model: str
    chat_digest: str
    file: FileEntry  # a safetensors file, or a kit's zip
    report: FileEntry  # safety_report.json
    modules: tuple[PartModule, ...]
    made_of: Mapping[str, object]  # the facts of its id, for people


def part_id(made_of: Mapping[str, object]) -> str:
    """SHA-256 (hex) over everything a part depends on."""
    text = json.dumps(made_of, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def safety_module_facts(
    recipe: SafetyModuleRecipe, chat_digest: str, tokenizer: str
) -> dict[str, object]:
    """What a safety module depends on; `tokenizer` is a digest of tokenizer and chat template."""
    return {
        "kind": "safety_module",
        "version": ALGORITHM,
        "chat_digest": chat_digest,
        "tokenizer": tokenizer,
        "dataset": recipe.dataset,
        "target_modules": sorted(recipe.target_modules),
        "rank": recipe.rank,
        "dtype": recipe.dtype,
        **asdict(recipe.encoding),
    }


def kit_facts(recipe: InitRecipe, chat_digest: str, tokenizer: str) -> dict[str, object]:
    """What a kit depends on; on the tokenizer only where it has a task's data."""
    return {
        "kind": "kit",
        "version": ALGORITHM,
        "chat_digest": chat_digest,
        "tokenizer": None if recipe.dataset is None else tokenizer,
        "safety_module": recipe.safety_module,
        "dataset": recipe.dataset,
        "rank": recipe.rank,
        "alpha": recipe.resolved_alpha,
        "use_rslora": recipe.use_rslora,
        "task_rank": recipe.task_rank,
        "initialisation": recipe.initialisation,
        "dtype": recipe.dtype,
        **asdict(recipe.encoding),
    }
