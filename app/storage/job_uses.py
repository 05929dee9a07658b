"""What a job names besides its own adapter, or made: it stays as long as the job does."""

from collections.abc import Iterator

from sqlalchemy import Connection, delete, exc, literal, select, update

from app.domain.errors import AdapterNotFound, JobNotFound, NotFound
from app.domain.evaluation import EvaluateRecipe, FrontierRecipe, MeasureRecipe, Subject
from app.domain.job import MADE_BY, Job
from app.domain.salora import PART_NAMES, PartKind
from app.domain.salora_errors import DatasetNotFound, PartNotFound
from app.storage.database import utc_now
from app.storage.tables import job_uses, jobs, parts

Use = tuple[dict[str, str], NotFound]
"""The columns, and the error where there is no such thing."""


def note_uses(connection: Connection, job: Job) -> None:
    """Keep what a new job names. Raises DatasetNotFound, PartNotFound, AdapterNotFound, JobNotFound
    where its time ran out a moment ago."""
    for use, missing in _uses(job):
        if "made_by" in use and not _is_own(connection, use["made_by"], job.tenant):
            raise missing
        try:
            connection.execute(job_uses.insert().values(job=job.id, tenant=job.tenant, **use))
        except exc.IntegrityError as error:
            raise missing from error
        if "part" in use:
            named = (parts.c.kind == use["part_kind"]) & (parts.c.id == use["part"])
            used = update(parts).where(parts.c.tenant == job.tenant, named)
            connection.execute(used.values(used_at=utc_now(connection)))


def _is_own(connection: Connection, job_id: str, tenant: str) -> bool:
    """Asked, because the foreign key of a job knows no tenant."""
    query = select(jobs.c.seq).where(jobs.c.id == job_id, jobs.c.tenant == tenant)
    return connection.execute(query).first() is not None


def _uses(job: Job) -> Iterator[Use]:
    for dataset in _datasets(job):
        yield {"dataset": dataset}, DatasetNotFound(dataset=dataset)
    for kind, part in _parts(job):
        yield {"part_kind": kind, "part": part}, PartNotFound(what=PART_NAMES[kind], id=part)
    if isinstance(job.recipe, EvaluateRecipe):
        yield from map(_of_subject, job.recipe.adapters)


def _datasets(job: Job) -> list[str]:
    recipe = job.recipe
    if not isinstance(recipe, MeasureRecipe):
        dataset = getattr(recipe, "dataset", None)
        return [dataset] if dataset else []
    named = list(recipe.sets.by_role.values())
    if isinstance(recipe, FrontierRecipe):
        named += recipe.held_out.by_role.values()
    return list(dict.fromkeys(named))


def _parts(job: Job) -> Iterator[tuple[PartKind, str]]:
    safety_module = getattr(job.recipe, "safety_module", None) or job.method.safety_module
    if safety_module is not None:
        yield "safety_module", safety_module
    if kit := getattr(job.recipe, "kit", None):
        yield "kit", kit


def _of_subject(subject: Subject) -> Use:
    if subject.adapter is not None:
        return {"adapter": subject.adapter}, AdapterNotFound(adapter=subject.adapter)
    return {"made_by": str(subject.job)}, JobNotFound(job=subject.job)


def note_made(connection: Connection, job: Job) -> None:
    """Keep what a job that ended has made, where it is there."""
    kind = MADE_BY.get(job.kind)
    if kind is None or job.result is None or job.result.part is None:
        return
    made = select(literal(job.id), parts.c.tenant, parts.c.kind, parts.c.id).where(
        parts.c.tenant == job.tenant, parts.c.kind == kind, parts.c.id == job.result.part
    )
    columns = ["job", "tenant", "part_kind", "part"]
    connection.execute(job_uses.insert().from_select(columns, made))


def forget_uses(connection: Connection, job_ids: list[str]) -> None:
    connection.execute(delete(job_uses).where(job_uses.c.job.in_(job_ids)))
