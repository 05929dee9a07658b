"""What there is to say of two models without an adapter: shared modules, and what is kept of V."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from app.domain.adapter import LayerType
from app.domain.described import Described
from app.domain.report import SCHEMA_VERSION, AlignmentSource, ModelReference


class Shaped(Protocol):
    """A module as far as its alignment needs to know it."""

    @property
    def name(self) -> str: ...
    @property
    def d_out(self) -> int: ...
    @property
    def d_in(self) -> int: ...
    @property
    def layer_type(self) -> LayerType: ...


@dataclass(frozen=True, slots=True)
class AlignedModule:
    """A module that both models have, whether or not an adapter touches it."""

    name: str
    d_out: int
    d_in: int  # of an embedding the vocabulary
    layer_type: LayerType = "linear"
    dora: bool = False


@dataclass(frozen=True)
class Warmed(Described):
    """One module of a pre-warm."""

    module: str
    shape: tuple[int, int]
    """(d_out, d_in) of V"""
    form: str
    """what is kept: panels of V, its Gram matrix, or singular directions"""
    dtype: str | None
    """safetensors name; null where nothing is kept"""
    size_bytes: int
    rounding: float | None
    """||V - kept V||_F / ||V||_F"""
    source: AlignmentSource | None
    """null where nothing is kept"""
    note: str = ""
    """why nothing is kept"""


@dataclass(frozen=True)
class AlignmentReport(Described):
    """What a pre-warm left in the alignment cache."""

    base_model: ModelReference
    chat_model: ModelReference
    projector: str
    energy: float | None
    rank: int | None
    modules: Sequence[Warmed]
    """in module order"""
    size_bytes: int
    warnings: Sequence[str]
    versions: Mapping[str, str]
    kind: Literal["alignment"] = "alignment"
    schema_version: str = SCHEMA_VERSION

    def as_json(self) -> dict[str, Any]:
        """Plain values, `schema_version` first."""
        return {"schema_version": self.schema_version, **asdict(self)}


@dataclass(frozen=True)
class PairUsage(Described):
    """What one cache holds of one pair of models, and what a job found and missed there."""

    cache_id: str
    base_digest: str
    chat_digest: str
    base_model: str
    chat_model: str
    modules: int
    """entries: one for each module and form"""
    size_bytes: int
    hits: int = 0
    misses: int = 0


@dataclass(frozen=True)
class ListedPair(Described):
    """A pair in the listing: hits and misses are of all jobs so far."""

    usage: PairUsage
    last_used: datetime
