"""The report: what was changed, layer by layer, and why. Its JSON is a contract (`schema_version`).

It holds no time and no duration, so the same input gives the same bytes, but for `alignment` (where
each layer's `V` came from) and for rounding, where several adapters were examined together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.domain.described import Described

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
class LayerReport(Described):
    """One adapted module, or a full weight compared by what it changes of the chat model's. Numbers
    are null where it was skipped and has none."""

    module: str
    """full name in the base model; of a full weight the parameter's"""
    layer: int | None
    """the first number in the name; null where there is none"""
    kind: str
    """the last part of the name, as `q_proj`"""
    shape: tuple[int, int]
    """(d_out, d_in)"""
    rank: int | None
    """null for a full weight"""
    cosine: float | None
    """<dW, C dW>_F / (||dW||_F ||C dW||_F)"""
    retained_energy: float | None
    """||C dW||_F / ||dW||_F, what projecting leaves of the update"""
    update_norm: float | None
    """||dW||_F, scaling included"""
    alignment_norm: float | None
    """||W_chat - W_base||_F"""
    pdst: float | None
    """1 / (1 + ||B_final - C B||_F), the official code's figure"""
    pdst_if_selected: float | None
    """`pdst` if it were projected"""
    pdst_if_kept: float | None
    """`pdst` if it were kept"""
    rounding: float | None
    """relative error of the selected B in the adapter's own dtype"""
    alignment: AlignmentSource | None
    """whether V was computed for this job or kept from another"""
    note: str
    """what there is to say about the projector here, e.g. that it is the identity"""
    decision: Decision
    """`projected` (`B` became `C B`), `kept` (unchanged) or `skipped` (not screened)"""
    reason: str
    """why, as `cosine 0.41 is at or below the threshold 0.5`"""
    safety_share: float | None = None
    """||V_s V_s^T dW||_F / ||dW||_F, of the method salora: how much of the update goes where
    the chat model's refusals lie"""


@dataclass(frozen=True)
class Unscreened(Described):
    """A part of the adapter that bypasses LoRA, so that no projector looked at it."""

    name: str
    """of the parameter in the model"""
    reason: str
    """why no projector looked at it"""
    decision: Literal["kept", "dropped"]
    """`kept` with the verdict `review`, or `dropped`"""


@dataclass(frozen=True)
class Serving(Described):
    """What a serving system's own documentation or source says about an adapter like this."""

    system: str
    """its name"""
    loads: ServingLoads
    """`wrong`: it loads, and computes something else than PEFT does; `unknown`: no source says"""
    reasons: list[str]
    """which fields of the adapter stand in the way, or need what setting"""
    source: str
    """where it says so"""
    read: str
    """the day the source was read"""


@dataclass(frozen=True)
class ModelReference(Described):
    id: str
    """as the job named it"""
    revision: str | None
    """a hub commit; null for a local folder"""
    digest: str
    """SHA-256 over config.json, every shard's name, size, header, tensors' first KiB"""


@dataclass(frozen=True)
class AdapterReference(Described):
    id: str
    """SHA-256 over the files' names and digests"""
    base_model_name_or_path: str | None
    """what adapter_config.json says"""
    dropped_config_keys: tuple[str, ...]
    """keys of adapter_config.json that the patched one lacks"""


@dataclass(frozen=True)
class MethodReference(Described):
    """The method as resolved: null where a field plays no part."""

    name: str
    """`safe_lora`, `scale`, `prune` or `salora`"""
    projector: str | None
    """`approximate`, `exact`, `subspace` or `complement`"""
    energy: float | None
    """of the directions: the share of `||V||_F^2` that they hold"""
    rank: int | None
    """of the directions: their number"""
    select: Mapping[str, Any]
    """{"by": ..., "value": ...}"""
    factor: float | None
    """of the method `scale`"""
    rescale: str
    """`none`, or `preserve_norm`"""
    full_weights: str
    """`keep`, `drop` or `project`"""
    safety_module: str | None = None
    """its id, of the method `salora`"""


@dataclass(frozen=True)
class Summary(Described):
    """`mean_*` and `median_*` are over the modules that have a cosine, projected or kept."""

    modules: int
    """all rows"""
    projected: int
    """how many were selected"""
    kept: int
    """how many were compared and left"""
    skipped: int
    """how many have no cosine, so that nothing was compared"""
    threshold: float | None
    """the one given, or the largest cosine that was projected"""
    mean_cosine: float | None
    """over projected and kept"""
    mean_pdst: float | None
    """what the official code prints; no measure of safety"""
    median_retained_energy: float | None
    """over projected and kept"""


@dataclass(frozen=True)
class Report(Described):
    adapter: AdapterReference
    """what came"""
    base_model: ModelReference | None
    """null where nothing is compared with it"""
    chat_model: ModelReference
    """the aligned model, on which the adapter was trained"""
    method: MethodReference
    """what was asked for, as resolved"""
    summary: Summary
    """counts and means"""
    layers: Sequence[LayerReport]
    """in module order, full weights last"""
    unscreened: Sequence[Unscreened]
    """parts that bypass LoRA"""
    warnings: Sequence[str]
    """sentences for people; none of them is to be parsed"""
    versions: Mapping[str, str]
    """of this program and of what computed: name to version"""
    serving: Sequence[Serving]
    """what serving systems are said to do with such an adapter"""
    verdict: Verdict = "review"
    """`patched`: all was screened; `review`: something was not, or a gate failed; `scored`"""
    kind: ReportKind = "patch"
    """of a score nothing was written: the decisions are what would be"""
    what_if: bool = False
    """decided anew from the cosines of an earlier job, nothing was written"""
    evaluation: Mapping[str, Any] | None = None
    """an `EvaluationReport`'s JSON: the adapter before and after the patch, where a gate
    measured it"""
    claim: str = CLAIM
    """what the numbers do not say"""
    schema_version: str = SCHEMA_VERSION
    """of this form"""

    def as_json(self) -> dict[str, Any]:
        """Plain values, `schema_version` first."""
        plain: dict[str, Any] = {"schema_version": self.schema_version, **asdict(self)}
        plain["adapter"]["dropped_config_keys"] = list(self.adapter.dropped_config_keys)
        return plain
