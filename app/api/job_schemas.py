"""Jobs over the wire: what a patch or score is asked for, and what every job shows."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from app.api.measure_schemas import GateIn
from app.api.recipes import recipe_out
from app.api.salora_schemas import part_path
from app.api.schemas import EXAMPLE_ADAPTER, ModelId, Number, RequestBody, within
from app.domain.errors import InvalidField
from app.domain.evaluation import GateRecipe
from app.domain.job import MADE_BY, MEASURE_KINDS, SALORA_KINDS, Job, JobKind, JobStatus, PatchKind
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


class SelectIn(RequestBody):
    """Which modules are projected, smallest cosine first."""

    by: SelectBy = Field(description="threshold, count, fraction or all")
    value: Number | None = Field(
        default=None,
        description="threshold: project where cosine <= value; count: exactly that many modules; "
        "fraction: at least that share; all: leave out.",
    )


class MethodIn(RequestBody):
    """Safe LoRA (arXiv 2405.16833) with one of four projectors, SaLoRA's, or a baseline."""

    name: MethodName = Field(
        default="safe_lora",
        description="safe_lora: C B; salora: C B with C of a safety module; scale: factor * B; "
        "prune: zero",
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
    safety_module: str | None = Field(
        default=None, description="salora: id of the safety module", max_length=200
    )

    def to_domain(self) -> Method:
        """Raises InvalidField naming `method.<field>`."""
        with within("method"):
            return Method(
                projector=self.projector,
                energy=self.energy,
                rank=self.rank,
                select=Selection(self.select.by, self.select.value),
                name=self.name,
                factor=self.factor,
                rescale=self.rescale,
                full_weights=self.full_weights,
                safety_module=self.safety_module,
            )


class JobIn(RequestBody):
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
    base_model: ModelId | None = Field(
        default=None, description="may be left out with the method salora alone"
    )
    chat_model: ModelId
    method: MethodIn = MethodIn()
    require: Literal["no_worse"] | None = Field(
        default=None,
        description="of a patch, with a gate: one that makes safety or utility significantly worse "
        "ends with the verdict review",
    )
    gate: GateIn | None = Field(default=None, description="what is measured before and after")

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        method = self.method.to_domain()
        if self.base_model is None and method.needs_base:
            raise InvalidField(field="base_model", reason="is missing")
        return JobRequest(
            kind=self.kind,
            adapter=self.adapter,
            base_model=self.base_model,
            chat_model=self.chat_model,
            method=method,
            recipe=self._gate(),
        )

    def _gate(self) -> GateRecipe | None:
        """Raises InvalidField."""
        if self.gate is None:
            if self.require is not None:
                raise InvalidField(field="gate", reason="is missing: what is required is measured")
            return None
        if self.require is None:
            raise InvalidField(field="require", reason="is missing: a gate needs one")
        if self.kind != "patch":
            raise InvalidField(field="gate", reason=f"a {self.kind} takes none")
        return self.gate.to_domain()


class ProgressOut(BaseModel):
    done: int
    total: int


class CheckpointOut(BaseModel):
    step: int
    size_bytes: int


class JobOut(BaseModel):
    id: str
    kind: JobKind
    status: JobStatus
    adapter: str | None = Field(description="null for a job that is of no adapter")
    base_model: str | None = Field(description="null where nothing is compared with it")
    chat_model: str
    revisions: dict[str, str] = Field(
        description="the commits (SHA) of the models that come from the hub, by their names here; "
        "once a worker has resolved them"
    )
    method: dict[str, Any] | None = Field(
        description="of an alignment the projector alone; null for SaLoRA's and measuring kinds"
    )
    recipe: dict[str, Any] | None = Field(
        description="what a job of SaLoRA's and measuring kinds was asked for, defaults resolved; "
        "of a patch what it requires and its gate"
    )
    modules: list[str] | None = Field(description="what an alignment was asked for by name")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    cancel_requested: bool
    progress: ProgressOut
    checkpoint: CheckpointOut | None = Field(
        description="how far a training or an evaluation had come"
    )
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
            revisions=dict(job.revisions),
            method=_method(job),
            recipe=recipe_out(job.recipe),
            modules=None if job.modules is None else list(job.modules),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            attempts=job.attempts,
            cancel_requested=job.cancel_requested,
            progress=ProgressOut(done=job.modules_done, total=job.modules_total),
            checkpoint=_checkpoint(job),
            problem=_problem(job),
            links={"self": job_path(job.id), **_links(job)},
        )


class JobPage(BaseModel):
    items: list[JobOut]
    next_cursor: str | None


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}"


def _method(job: Job) -> dict[str, Any] | None:
    if job.kind in (*SALORA_KINDS, *MEASURE_KINDS):
        return None
    if job.kind == "alignment":
        projection = job.method.projection
        return {name: getattr(projection, name) for name in ("projector", "energy", "rank")}
    return asdict(method_reference(job.method))


def _checkpoint(job: Job) -> CheckpointOut | None:
    if job.checkpoint is None:
        return None
    return CheckpointOut(step=job.checkpoint.step, size_bytes=job.checkpoint.file.size_bytes)


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
    if job.result and job.result.transcripts:
        links["transcripts"] = f"{base}/transcripts"
    if job.result and job.result.part and (made := MADE_BY.get(job.kind)):
        links[made] = part_path(made, job.result.part)
    return links
