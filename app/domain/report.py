"""The report: what was changed, layer by layer, and why. Its JSON is a contract (`schema_version`).

It holds no time and no duration, so the same input gives the same bytes, but for `alignment` (where
each layer's `V` came from) and for rounding, where several adapters were examined together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

SCHEMA_VERSION = "1"
CLAIM = (
    "Cosines and energies describe weights. They do not measure refusals, and no module or adapter "
    "is called safe by this report."
)

IDENTITY = "this projector is the identity here and changes nothing"
TIED = "it shares the embedding's weight, so merging the adapter changes the embedding as well"
TIED_TO_HEAD = "the head shares its weight, so merging the adapter changes the head as well"
ZERO_UPDATE = "the update is zero, so it has no cosine"
ZERO_ALIGNMENT = "base and chat weights are equal here, so there is no alignment to compare with"

Decision = Literal["projected", "kept", "skipped"]
ReportKind = Literal["patch", "score"]
AlignmentSource = Literal["computed", "cache", "memory"]
Verdict = Literal["patched", "review", "scored"]
"""`patched`: every part of the adapter was screened. `review`: a part was not, and a person should
look at it. `scored`: nothing was written."""
ServingLoads = Literal["yes", "setting", "unknown", "wrong", "refused"]


@dataclass(frozen=True)
class LayerReport:
    """One adapted module, or a full weight compared by what it changes of the chat model's. Numbers
    are null where it was skipped and has none."""

    module: str  # full name in the base model; of a full weight the parameter's
    layer: int | None  # the first number in the name
    kind: str  # the last part of the name, e.g. "q_proj"
    shape: tuple[int, int]  # (d_out, d_in)
    rank: int | None  # null for a full weight
    cosine: float | None  # <dW, C dW>_F / (||dW||_F ||C dW||_F)
    retained_energy: float | None  # ||C dW||_F / ||dW||_F, what projecting leaves of the update
    update_norm: float | None  # ||dW||_F, scaling included
    alignment_norm: float | None  # ||W_chat - W_base||_F
    pdst: float | None  # 1 / (1 + ||B_final - C B||_F), the official code's figure
    pdst_if_selected: float | None
    pdst_if_kept: float | None
    rounding: float | None  # relative error of the selected B in the adapter's own dtype
    alignment: AlignmentSource | None  # whether V was computed for this job or kept from another
    note: str  # what there is to say about the projector here, e.g. that it is the identity
    decision: Decision
    reason: str
    # ||V_s V_s^T dW||_F / ||dW||_F, of the method salora: how much of the update goes where the
    # chat model's refusals lie
    safety_share: float | None = None


@dataclass(frozen=True)
class Unscreened:
    """A part of the adapter that bypasses LoRA, so that no projector looked at it."""

    name: str  # of the parameter in the model
    reason: str
    decision: Literal["kept", "dropped"]


@dataclass(frozen=True)
class Serving:
    """What a serving system's own documentation or source says about an adapter like this."""

    system: str
    # "wrong": it loads, and computes something else than PEFT does; "unknown": no source says
    loads: ServingLoads
    reasons: list[str]
    source: str
    read: str  # the day the source was read


@dataclass(frozen=True)
class ModelReference:
    id: str
    revision: str | None  # a hub commit; null for a local folder
    digest: str  # SHA-256 over config.json, every shard's name, size, header, tensors' first KiB


@dataclass(frozen=True)
class AdapterReference:
    id: str  # SHA-256 over the files' names and digests
    base_model_name_or_path: str | None  # what adapter_config.json says
    dropped_config_keys: tuple[str, ...]


@dataclass(frozen=True)
class MethodReference:
    """The method as resolved: null where a field plays no part."""

    name: str
    projector: str | None
    energy: float | None
    rank: int | None
    select: Mapping[str, Any]  # {"by": ..., "value": ...}
    factor: float | None
    rescale: str
    full_weights: str
    safety_module: str | None = None  # Part.id


@dataclass(frozen=True)
class Summary:
    """`mean_*` and `median_*` are over the modules that have a cosine, projected or kept."""

    modules: int
    projected: int
    kept: int
    skipped: int
    threshold: float | None  # the one given, or the largest cosine that was projected
    mean_cosine: float | None
    mean_pdst: float | None  # what the official code prints; no measure of safety
    median_retained_energy: float | None


@dataclass(frozen=True)
class Report:
    adapter: AdapterReference
    base_model: ModelReference | None  # null where nothing is compared with it
    chat_model: ModelReference
    method: MethodReference
    summary: Summary
    layers: Sequence[LayerReport]  # in module order, full weights last
    unscreened: Sequence[Unscreened]
    warnings: Sequence[str]
    versions: Mapping[str, str]
    serving: Sequence[Serving]
    verdict: Verdict = "review"
    kind: ReportKind = "patch"  # of a score nothing was written: the decisions are what would be
    what_if: bool = False  # decided anew from the cosines of an earlier job, nothing was written
    # an `EvaluationReport`'s JSON: the adapter before and after the patch, where a gate measured it
    evaluation: Mapping[str, Any] | None = None
    claim: str = CLAIM
    schema_version: str = SCHEMA_VERSION

    def as_json(self) -> dict[str, Any]:
        """Plain values, `schema_version` first."""
        plain: dict[str, Any] = {"schema_version": self.schema_version, **asdict(self)}
        plain["adapter"]["dropped_config_keys"] = list(self.adapter.dropped_config_keys)
        return plain
