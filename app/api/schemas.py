"""What goes over the wire. Requests forbid unknown fields, so that a typing error is told."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from app.domain.adapter import LayerType, ListedAdapter, StoredAdapter
from app.domain.errors import InvalidField
from app.domain.job import Job, JobKind, JobStatus, PatchKind
from app.domain.method import (
    DEFAULT_THRESHOLD,
    FullWeights,
    Method,
    MethodName,
    ProjectorName,
    Rescale,
    SelectBy,
    Selection,
)
from app.jobs.decide import method_reference
from app.jobs.submit import JobRequest

EXAMPLE_ADAPTER = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
ModelId = Annotated[str, Field(max_length=200, examples=["org/model-base", "org/model-chat"])]
Number = StrictFloat | StrictInt  # because "0.4" and true are not numbers


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SelectIn(_Request):
    """Which modules are projected, smallest cosine first."""

    by: SelectBy = Field(description="threshold, count, fraction or all")
    value: Number | None = Field(
        default=None,
        description="threshold: project where cosine <= value; count: exactly that many modules; "
        "fraction: at least that share; all: leave out.",
    )


class MethodIn(_Request):
    """Safe LoRA (arXiv 2405.16833) with one of four projectors, or a baseline."""

    name: MethodName = Field(
        default="safe_lora", description="safe_lora: C B; scale: factor * B; prune: zero"
    )
    projector: ProjectorName = "approximate"
    energy: Number | None = Field(
        default=None, description="subspace, complement: share of ||V||_F^2 to hold, 0.9 if unset"
    )
    rank: StrictInt | None = Field(
        default=None, description="subspace, complement: number of directions instead of energy"
    )
    factor: Number | None = Field(default=None, description="scale: in [0, 1]")
    rescale: Rescale = Field(
        default="none", description="safe_lora: preserve_norm brings ||dW||_F back to what it was"
    )
    full_weights: FullWeights = Field(
        default="keep",
        description="modules_to_save, trained tokens and biases: keep leaves them, unscreened; "
        "drop takes them out of the adapter; project compares and changes them as LoRA modules",
    )
    select: SelectIn = SelectIn(by="threshold", value=DEFAULT_THRESHOLD)

    def to_domain(self) -> Method:
        """Raises InvalidField naming `method.<field>`."""
        try:
            select = Selection(self.select.by, self.select.value)
            return Method(
                projector=self.projector,
                energy=self.energy,
                rank=self.rank,
                select=select,
                name=self.name,
                factor=self.factor,
                rescale=self.rescale,
                full_weights=self.full_weights,
            )
        except InvalidField as error:
            field, reason = error.facts["field"], error.facts["reason"]
            raise InvalidField(field=f"method.{field}", reason=reason) from None


class JobIn(_Request):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "kind": "patch",
                    "adapter": EXAMPLE_ADAPTER,
                    "base_model": "org/model-base",
                    "chat_model": "org/model-chat",
                    "method": {
                        "name": "safe_lora",
                        "projector": "approximate",
                        "select": {"by": "threshold", "value": 0.5},
                    },
                }
            ]
        },
    )

    kind: PatchKind = "patch"
    adapter: str = Field(description="id of an uploaded adapter", max_length=200)
    base_model: ModelId
    chat_model: ModelId
    method: MethodIn = MethodIn()

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        return JobRequest(
            kind=self.kind,
            adapter=self.adapter,
            base_model=self.base_model,
            chat_model=self.chat_model,
            method=self.method.to_domain(),
        )


class FileOut(BaseModel):
    sha256: str
    size_bytes: int


class ModuleOut(BaseModel):
    module: str
    rank: int
    alpha: float
    d_out: int
    d_in: int
    dtype: str
    layer_type: LayerType = Field(description="embedding: d_in is the vocabulary")
    dora: bool


class AdapterOut(BaseModel):
    id: str = Field(description="SHA-256 over the files' names and digests")
    created_at: datetime
    size_bytes: int
    files: dict[str, FileOut]
    base_model_name_or_path: str | None
    dropped_config_keys: list[str]
    modules: list[ModuleOut]

    @classmethod
    def of(cls, adapter: StoredAdapter) -> "AdapterOut":
        return cls(
            id=adapter.id,
            created_at=adapter.created_at,
            size_bytes=adapter.size_bytes,
            files={
                name: FileOut(sha256=file.sha256, size_bytes=file.size_bytes)
                for name, file in adapter.files.items()
            },
            base_model_name_or_path=adapter.base_model_name,
            dropped_config_keys=list(adapter.dropped_keys),
            modules=[
                ModuleOut(
                    module=m.name,
                    rank=m.rank,
                    alpha=m.alpha,
                    d_out=m.d_out,
                    d_in=m.d_in,
                    dtype=m.dtype,
                    layer_type=m.layer_type,
                    dora=m.dora,
                )
                for m in adapter.modules
            ],
        )


class AdapterSummaryOut(BaseModel):
    """An adapter in a listing: without its modules, which may be thousands."""

    id: str
    created_at: datetime
    size_bytes: int
    modules: int
    base_model_name_or_path: str | None

    @classmethod
    def of(cls, adapter: ListedAdapter) -> "AdapterSummaryOut":
        return cls(
            id=adapter.id,
            created_at=adapter.created_at,
            size_bytes=adapter.size_bytes,
            modules=adapter.modules,
            base_model_name_or_path=adapter.base_model_name,
        )


class ProgressOut(BaseModel):
    done: int
    total: int


class JobOut(BaseModel):
    id: str
    kind: JobKind
    status: JobStatus
    adapter: str | None = Field(description="null for an alignment that is of no adapter")
    base_model: str
    chat_model: str
    method: dict[str, Any] = Field(description="of an alignment the projector alone")
    modules: list[str] | None = Field(description="what an alignment was asked for by name")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    cancel_requested: bool
    progress: ProgressOut
    problem: dict[str, Any] | None = Field(description="why a failed job failed")
    links: dict[str, str]

    @classmethod
    def of(cls, job: Job) -> "JobOut":
        return cls(
            id=job.id,
            kind=job.kind,
            status=job.status,
            adapter=job.adapter,
            base_model=job.base_model,
            chat_model=job.chat_model,
            method=_method(job),
            modules=None if job.modules is None else list(job.modules),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            attempts=job.attempts,
            cancel_requested=job.cancel_requested,
            progress=ProgressOut(done=job.modules_done, total=job.modules_total),
            problem=_problem(job),
            links={"self": job_path(job.id), **_links(job)},
        )


class AdapterPage(BaseModel):
    items: list[AdapterSummaryOut]
    next_cursor: str | None


class JobPage(BaseModel):
    items: list[JobOut]
    next_cursor: str | None


def adapter_path(adapter_id: str) -> str:
    return f"/v1/adapters/{adapter_id}"


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}"


def _method(job: Job) -> dict[str, Any]:
    if job.kind == "alignment":
        return asdict(job.method.projection)
    return asdict(method_reference(job.method))


def _problem(job: Job) -> dict[str, Any] | None:
    if job.fault is None:
        return None
    kind = f"urn:adapter-safety:problem:{job.fault.code}"
    return {**job.fault.facts, "type": kind, "title": job.fault.title, "detail": job.fault.detail}


def _links(job: Job) -> dict[str, str]:
    base = job_path(job.id)
    links = {"events": f"{base}/events"}
    if job.result:
        links["report"] = f"{base}/report"
    if job.result and job.result.archive:
        links["adapter"] = f"{base}/adapter"
    return links
