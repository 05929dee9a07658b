"""The reports of SaLoRA's jobs. Their JSON is a contract, as `report`'s is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.domain.described import Described
from app.domain.job import SaloraKind
from app.domain.report import SCHEMA_VERSION, ModelReference

Statistics = Literal["second moments", "sketch"]


@dataclass(frozen=True)
class DataUse(Described):
    """What became of one data set's rows."""

    role: Literal["safety", "task"]
    dataset: str
    """StoredDataset.id"""
    rows: int
    tokens: int
    response_tokens: int
    shortened: int
    """rows of which the end was cut off at max_length"""
    chat_template: bool


@dataclass(frozen=True)
class ModuleOf(Described):
    """Which module a row is of."""

    module: str
    """full name in the chat model"""
    layer: int | None
    kind: str
    shape: tuple[int, int]
    """(d_out, d_in)"""
    rank: int
    """of V_s, or of the adapter"""


@dataclass(frozen=True)
class SafetyRow(ModuleOf):
    """`V_s` of one module."""

    energy: float  # share of ||Y||_F^2 that the directions hold
    largest: float  # singular values of Y
    smallest: float
    statistics: Statistics


@dataclass(frozen=True)
class StartRow(ModuleOf):
    """`A0`, `B0` of one module."""

    safety_rank: int
    task_rank: int | None  # null without task data
    task_energy: float | None
    start_norm: float  # ||s B0 A0||_F
    weight_norm: float  # ||W||_F


@dataclass(frozen=True)
class ExportRow(ModuleOf):
    """One module of an exported adapter."""

    trained_rank: int
    update_norm: float  # ||dW||_F on the original weight
    safety_share: float  # ||V_s^T dW||_F / ||dW||_F of what was written: rounding alone
    error: float | None  # of the recompression, relative; null where the export is exact


@dataclass(frozen=True)
class TrainedStep(Described):
    step: int
    loss: float
    learning_rate: float
    tokens_per_s: float


@dataclass(frozen=True)
class Training(Described):
    """How a training went. It holds speeds, so two runs never have the same report."""

    steps: int
    epochs: float
    trained_parameters: int
    resumed_from: int | None
    """the step that the last attempt went on from; null: the start"""
    curve: Sequence[TrainedStep]


@dataclass(frozen=True)
class SaloraReport(Described):
    kind: SaloraKind
    chat_model: ModelReference
    settings: Mapping[str, Any]
    """the recipe as resolved"""
    data: Sequence[DataUse]
    modules: Sequence[SafetyRow | StartRow | ExportRow]
    """in module order"""
    warnings: Sequence[str]
    versions: Mapping[str, str]
    part: str | None = None
    """the id of the safety module or kit that was made"""
    training: Training | None = None
    schema_version: str = SCHEMA_VERSION

    def as_json(self) -> dict[str, Any]:
        """Plain values, `schema_version` first."""
        return {"schema_version": self.schema_version, **asdict(self)}
