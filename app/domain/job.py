"""A job and its legal states. The database holds the truth about both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from app.domain.access import DEFAULT_TENANT
from app.domain.adapter import FileEntry
from app.domain.errors import AdapterSafetyError
from app.domain.evaluation import MeasureRecipe
from app.domain.method import Method
from app.domain.salora import PartKind, Recipe

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FinalStatus = Literal["succeeded", "failed", "cancelled"]
SaloraKind = Literal["safety_module", "salora_init", "salora_train", "salora_export"]
MeasureKind = Literal["evaluate", "frontier"]
JobKind = Literal["patch", "score", "alignment", SaloraKind, MeasureKind]
PatchKind = Literal["patch", "score"]  # of one adapter

STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)
SALORA_KINDS: tuple[SaloraKind, ...] = get_args(SaloraKind)
MEASURE_KINDS: tuple[MeasureKind, ...] = get_args(MeasureKind)
KINDS: tuple[JobKind, ...] = ("patch", "score", "alignment", *SALORA_KINDS, *MEASURE_KINDS)
FINAL: frozenset[JobStatus] = frozenset(get_args(FinalStatus))
MADE_BY: Mapping[JobKind, PartKind] = {"safety_module": "safety_module", "salora_init": "kit"}
COALESCED: frozenset[JobKind] = frozenset({"patch", "score"})
"""Kinds of which a worker takes several at once, where they are of the same two models."""

AnyRecipe = Recipe | MeasureRecipe


@dataclass(frozen=True)
class Fault:
    """Why a job failed: the error tree's facts, as kept and shown."""

    code: str
    title: str
    detail: str
    facts: Mapping[str, object]

    @classmethod
    def of(cls, error: AdapterSafetyError) -> "Fault":
        return cls(error.code, error.title, str(error), error.facts)


@dataclass(frozen=True)
class JobResult:
    """What a job that succeeded left behind, by content."""

    report: FileEntry  # safety_report.json
    archive: FileEntry | None  # an adapter, a zip; a score has none
    part: str | None = None  # Part.id, of a safety module or a kit
    transcripts: FileEntry | None = None  # prompts and answers in JSON lines, where any were made


@dataclass(frozen=True)
class Checkpointed:
    """How far a job had come, so that another worker can go on."""

    step: int  # of a training; of an evaluation the rows that are done
    file: FileEntry  # a tar of the Trainer's checkpoint; an evaluation's results until then


@dataclass(frozen=True)
class Job:
    id: str
    kind: JobKind
    status: JobStatus
    adapter: str | None  # StoredAdapter.id; an alignment may be of no adapter
    base_model: str | None  # None where nothing is compared with it
    chat_model: str
    method: Method  # of a patch, score or alignment
    created_at: datetime  # all times are UTC
    tenant: str = DEFAULT_TENANT
    modules: tuple[str, ...] | None = None  # of an alignment: full names or suffixes, as asked for
    recipe: AnyRecipe | None = None  # of SaLoRA's and the measuring kinds; of a patch its gate
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0  # how often a worker has started it
    fence: int = 0  # grows with each claim; a worker whose fence is old has lost the job
    modules_done: int = 0
    modules_total: int = 0
    cancel_requested: bool = False
    fault: Fault | None = None
    result: JobResult | None = None
    checkpoint: Checkpointed | None = None  # the last
    revisions: Mapping[str, str] = field(default_factory=dict)  # commit SHAs, by model as named
    request_id: str | None = None  # of the HTTP request that submitted it, for the log
    traceparent: str | None = None  # of the trace that it belongs to, where one is kept

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def only_adapter(self) -> str:
        """The adapter of a job that is of one. Raises ValueError for a job that has none."""
        if self.adapter is None:
            raise ValueError(f"job {self.id} ({self.kind}) is of no adapter")
        return self.adapter

    @property
    def models(self) -> tuple[str, str]:
        """Base and chat model. Raises ValueError for a job that has no base model."""
        if self.base_model is None:
            raise ValueError(f"job {self.id} ({self.kind}) has no base model")
        return self.base_model, self.chat_model

    @property
    def is_coalesced(self) -> bool:
        """Whether a worker may take it together with others of its pair of models. A gate holds
        whole models in memory, so such a patch goes alone."""
        of_pair = self.base_model is not None and self.method.needs_base
        return self.kind in COALESCED and of_pair and self.recipe is None

    @property
    def is_first_claim(self) -> bool:
        """Whether the worker that has this job is the first that ever had it."""
        return self.fence == 1


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job, as `GET /v1/jobs/{id}/events` tells it."""

    id: str  # grows; what a client sends back as Last-Event-ID
    name: str  # "queued", "running", "module", or a final status
    data: Mapping[str, object]
