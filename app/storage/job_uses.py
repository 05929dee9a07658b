"""Which data sets and parts a job names or made: they stay as long as the job does."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, delete, exc, literal, select, update

from app.domain.errors import NotFound
from app.domain.job import MADE_BY, Job
from app.domain.salora import PART_NAMES, PartKind
from app.domain.salora_errors import DatasetNotFound, PartNotFound
from app.storage.database import utc_now
from app.storage.tables import job_uses, parts


def note_uses(connection: Connection, job: Job) -> None:
    """Keep what a new job names. Raises DatasetNotFound, PartNotFound where its time ran out a
    moment ago."""
    for use, missing in _uses(job):
        try:
            connection.execute(job_uses.insert().values(job=job.id, tenant=job.tenant, **use))
        except exc.IntegrityError as error:
            raise missing from error
        if "part" in use:
            named = (parts.c.kind == use["part_kind"]) & (parts.c.id == use["part"])
            used = update(parts).where(parts.c.tenant == job.tenant, named)
            connection.execute(used.values(used_at=utc_now(connection)))


def _uses(job: Job) -> Iterator[tuple[dict[str, str], NotFound]]:
    """The columns of each use, and the error where there is no such thing."""
    if dataset := getattr(job.recipe, "dataset", None):
        yield {"dataset": dataset}, DatasetNotFound(dataset=dataset)
    safety_module = getattr(job.recipe, "safety_module", None) or job.method.safety_module
    named: dict[PartKind, Any] = {
        "safety_module": safety_module,
        "kit": getattr(job.recipe, "kit", None),
    }
    for kind, part in named.items():
        if part is not None:
            yield {"part_kind": kind, "part": part}, PartNotFound(what=PART_NAMES[kind], id=part)


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
