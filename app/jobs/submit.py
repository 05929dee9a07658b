"""Submit a job: check all that can be checked now, commit, then enqueue."""

import hashlib
import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from app.domain.access import NO_QUOTAS, Quotas
from app.domain.adapter import StoredModule
from app.domain.checkpoint import Checkpoint
from app.domain.errors import InvalidField, Unavailable
from app.domain.evaluation import MeasureRecipe
from app.domain.job import SALORA_KINDS, AnyRecipe, Job, JobKind
from app.domain.method import Method
from app.intake.preflight import check_fit
from app.jobs.align import modules_to_align
from app.jobs.check_measure import check_measure
from app.jobs.check_salora import check_count, check_exported, check_recipe, check_salora, given
from app.jobs.ports import Events, IdempotencyKey, Models, Queue, Records
from app.observe import context, traces

logger = logging.getLogger(__name__)

OWN_KEYS = "\x1f"
"""What the idempotency keys of the service's own jobs begin with: clients' keys are printable."""
WITHOUT_METHOD: frozenset[JobKind] = frozenset({*SALORA_KINDS, "evaluate"})
"""Kinds that compare no adapter with a pair of models."""


@dataclass(frozen=True)
class JobRequest:
    """What a client asks for."""

    kind: JobKind
    adapter: str | None
    base_model: str | None  # None where nothing is compared with it
    chat_model: str
    method: Method  # of a patch, score or alignment
    modules: tuple[str, ...] | None = None  # of an alignment without an adapter; all, if None
    recipe: AnyRecipe | None = None  # of SaLoRA's and the measuring kinds; of a patch its gate

    @property
    def models(self) -> tuple[str, str]:
        """Base and chat model. Raises InvalidField where no base model was named."""
        if self.base_model is None:
            raise InvalidField(field="base_model", reason="is missing")
        return self.base_model, self.chat_model

    @property
    def sha256(self) -> str:
        """Digest of the request, to tell a repeated one from another under the same key."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def submit(
    request: JobRequest,
    key: str | None,
    *,
    records: Records,
    queue: Queue,
    events: Events,
    models: Models,
    quotas: Quotas = NO_QUOTAS,
) -> Job:
    """Keep a job and hand it to the workers; under a key used before, return that request's job.

    Raises AdapterNotFound, DatasetNotFound, PartNotFound, JobNotFound, what `check_request` raises,
    IdempotencyKeyReused and QuotaExceeded; nothing is kept then.
    A broker that is away is no error: the job is kept, and the reconciler enqueues it.
    """
    idempotency = IdempotencyKey(key, request.sha256) if key is not None else None
    earlier = records.job_for_key(idempotency) if idempotency else None
    if earlier:
        return earlier
    adapter = None if request.adapter is None else records.adapter(request.adapter)
    modules = adapter.modules if adapter else None
    if adapter and request.kind != "salora_export":
        check_exported(adapter.dropped_keys)
    check_request(request, modules, models=models, records=records)
    wanted = _new_job(request)
    job = records.add_job(wanted, idempotency, most_queued=quotas.queued_jobs)
    if job.id == wanted.id:
        with context.bound(job_id=job.id, kind=job.kind):
            logger.info("the job is kept")
        events.publish(job.id, "queued", {"status": "queued"})
        enqueue(job.id, job.kind, queue)
    return job


def check_request(
    request: JobRequest,
    modules: Sequence[StoredModule] | None,
    *,
    models: Models,
    records: Records,
) -> None:
    """All about a request that needs no tensor's bytes; `modules` are the adapter's, if any.

    Where a model is remote, what needs it waits for the worker, which checks everything again.

    Raises UnknownModel, CheckpointRefused, ModulesNotInModel, ModelShapesDiffer,
    AdapterShapesDiffer, InvalidField, and what `check_measure`, `check_recipe` and `check_salora`
    raise.
    """
    if remote_models(request, models):
        _check_without_models(request, modules)
        return
    chat = models.checkpoint(request.chat_model, field="chat_model")
    of_chat = (request.chat_model, chat, modules)
    if isinstance(request.recipe, MeasureRecipe):
        check_measure(request.recipe, *of_chat, models=models, records=records)
    elif request.recipe is not None:
        check_recipe(request.recipe, *of_chat, records)
    if request.kind in WITHOUT_METHOD:
        return
    if request.method.safety_module is not None:
        check_salora(request.method, *of_chat, records)
    if request.method.needs_base or request.base_model is not None:
        _check_pair(request, modules, chat, models)


def remote_models(request: JobRequest | Job, models: Models) -> list[str]:
    """The models of a request that only a worker can look at. Raises InvalidField,
    ModelNotAllowed."""
    named = [("chat_model", request.chat_model), ("base_model", request.base_model)]
    judging = getattr(request.recipe, "judging", None)
    if judging is not None and judging.guard_model is not None:
        named.append(("guard_model", judging.guard_model))
    return [name for field, name in named if name and models.is_remote(name, field=field)]


def check_job(job: Job, *, models: Models, records: Records) -> None:
    """As `check_request`, by a worker, for whom no model is remote."""
    adapter = None if job.adapter is None else records.adapter(job.adapter)
    request = JobRequest(
        job.kind,
        job.adapter,
        job.base_model,
        job.chat_model,
        job.method,
        job.modules,
        job.recipe,
    )
    modules = adapter.modules if adapter else None
    check_request(request, modules, models=models, records=records)


def _check_without_models(request: JobRequest, modules: Sequence[StoredModule] | None) -> None:
    if request.kind in WITHOUT_METHOD:
        return
    if request.method.needs_base:
        _ = request.models
    if request.kind != "alignment":
        check_count(request.method, given(modules))


def _check_pair(
    request: JobRequest,
    modules: Sequence[StoredModule] | None,
    chat: Checkpoint,
    models: Models,
) -> None:
    base = models.checkpoint(request.models[0], field="base_model")
    if request.kind == "alignment":
        check_differ(base, chat)
        modules_to_align(request, modules, base, chat)
    else:
        check_patch(given(modules), base, chat, request)


def check_differ(base: Checkpoint, chat: Checkpoint) -> None:
    """Raises InvalidField for a model and itself."""
    is_one_commit = base.revision is not None and base.digest == chat.digest
    if base.folder == chat.folder or is_one_commit:
        reason = "is the same model as base_model, so there is no alignment to compare with"
        raise InvalidField(field="chat_model", reason=reason)


def check_patch(
    modules: Sequence[StoredModule], base: Checkpoint, chat: Checkpoint, request: JobRequest
) -> None:
    """The adapter fits both models, and the selection fits the adapter."""
    check_differ(base, chat)
    check_fit(modules, base, chat, *request.models)
    check_count(request.method, modules)


def enqueue(job_id: str, kind: JobKind, queue: Queue) -> None:
    """Hand a kept job to the workers; the reconciler repairs what the broker does not take."""
    try:
        queue.send(job_id, kind)
    except Unavailable as error:
        logger.warning("job %s stays queued in the database: %s", job_id, error)


def reconcile(records: Records, queue: Queue, *, queued_for_s: float) -> list[str]:
    """Enqueue again what the queue may have lost; the ids. Raises Unavailable.

    A job sent twice still runs once at a time. A backlog is not sent again and again: only a queue
    with fewer messages than there are queued jobs has lost any.
    """
    short = queue.depth() < records.count_queued()
    orphans = records.take_orphans(queued_for_s=queued_for_s, queue_is_short=short)
    for job_id, kind in orphans:
        enqueue(job_id, kind, queue)
    return [job_id for job_id, _ in orphans]


def _new_job(request: JobRequest) -> Job:
    return Job(
        id=uuid.uuid4().hex,
        kind=request.kind,
        status="queued",
        adapter=request.adapter,
        base_model=request.base_model,
        chat_model=request.chat_model,
        method=request.method,
        modules=request.modules,
        recipe=request.recipe,
        created_at=datetime.now(UTC),
        request_id=context.request_id(),
        traceparent=traces.traceparent(),
    )
