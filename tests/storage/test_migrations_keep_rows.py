"""Every migration, down and up again, on what the code itself has kept in every table."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine, select

from app.domain.alignment import PairUsage
from app.domain.evaluation import EvaluateRecipe, Sets, Subject
from app.domain.job import JobResult
from app.domain.salora import InitRecipe, TrainRecipe
from app.domain.verdict import Push
from app.jobs.ports import IdempotencyKey
from app.jobs.verdict_ports import VerdictFilter
from app.storage import migrate
from app.storage.database import Database
from app.storage.keys import SqlKeys
from app.storage.records import SqlRecords
from app.storage.tables import metadata
from app.storage.verdicts import SqlVerdicts
from app.storage.webhooks import SqlWebhooks
from tests.kept_webhooks import an_endpoint
from tests.samples import (
    a_dataset,
    a_job,
    a_measure_job,
    a_part,
    a_salora_job,
    an_adapter,
    entry_of,
)

Rows = dict[str, list[str]]


def test_what_each_revision_holds_is_the_same_after_a_way_to_the_head_and_back(
    empty_database_url: str,
) -> None:
    """Down by one, and what is there now is data of that revision; up to the head, where this code
    reads all of it; down again, and nothing has changed."""
    migrate.upgrade(empty_database_url)
    _fill(empty_database_url)
    assert rows_of(empty_database_url).keys() == metadata.tables.keys()
    _read_everything(empty_database_url)
    for revision in _older_revisions():
        migrate.downgrade(empty_database_url, revision)
        before = rows_of(empty_database_url)
        assert all(before.values()), f"a table of {revision} is without rows: {before.keys()}"
        migrate.upgrade(empty_database_url)
        assert _read_everything(empty_database_url) >= 1
        migrate.downgrade(empty_database_url, revision)
        assert rows_of(empty_database_url) == before


def _older_revisions() -> list[str]:
    """Newest first, without the head."""
    script = ScriptDirectory(str(migrate.MIGRATIONS))
    return [found.revision for found in script.walk_revisions()][1:]


def rows_of(url: str) -> Rows:
    """Of every table but alembic's own, as the database itself describes it."""
    engine, found = create_engine(url), MetaData()
    found.reflect(engine)
    with engine.connect() as connection:
        rows = {
            name: sorted(_shown(connection, table))
            for name, table in found.tables.items()
            if name != "alembic_version"
        }
    engine.dispose()
    return rows


def _shown(connection: Connection, table: Any) -> Iterator[str]:
    for row in connection.execute(select(table)).mappings():
        yield repr(sorted((str(name), value) for name, value in row.items()))


# ------------------------------------------------------------------------------------------- rows
@contextmanager
def _stores(url: str) -> Iterator[tuple[SqlRecords, SqlKeys, SqlWebhooks, SqlVerdicts]]:
    database = Database(url)
    records, keys = SqlRecords(url), SqlKeys(url)
    try:
        yield records, keys, SqlWebhooks(database), SqlVerdicts(database)
    finally:
        for each in (records, keys, database):
            each.close()


def _fill(url: str) -> None:
    """By the code that keeps rows, some of every kind."""
    with _stores(url) as (records, keys, webhooks, verdicts):
        keys.create("pipeline", "default", ["read", "submit"])
        webhooks.add(an_endpoint(), most=9)
        _add_jobs(records)
        verdicts.receive(Push("hook", "r1", "org/name", "refs/heads/main", "a" * 40))
        records.note_alignments([PairUsage("cache", "0" * 64, "1" * 64, "b", "c", 3, 4, 5, 6)])


def _add_jobs(records: SqlRecords) -> None:
    """One that has succeeded, one that failed (and is told of by a webhook), those that wait."""
    adapter, dataset = an_adapter(), a_dataset()
    kit, module = a_part("kit"), a_part()
    records.add_adapter(adapter)
    records.add_dataset(dataset)
    for part in (kit, module):
        records.add_part(part)
    done, failed = (
        records.add_job(a_job(adapter), IdempotencyKey(name, "0")) for name in ("done", "failed")
    )
    for job, ending in ((done, "succeeded"), (failed, "failed")):
        claimed = records.claim(job.id, lease_s=60)
        assert claimed is not None
        result = JobResult(entry_of(b"report"), entry_of(b"zip")) if job is done else None
        records.finish(job.id, fence=claimed.fence, status=ending, result=result)
    measured = EvaluateRecipe(Sets(task=dataset.id), (Subject("a", job=done.id),))
    waiting = [
        a_salora_job("salora_init", InitRecipe(module.id, dataset.id)),
        a_salora_job("salora_train", TrainRecipe(kit.id, dataset.id)),
        a_measure_job("evaluate", measured),
    ]
    for job in waiting:
        records.add_job(job, IdempotencyKey(job.id, "0"))


def _read_everything(url: str) -> int:
    """By this code, which knows every field; how many jobs there are."""
    with _stores(url) as (records, keys, webhooks, verdicts):
        page = {"limit": 200, "cursor": None}
        for adapter in records.adapters(**page).items:
            records.adapter(adapter.id)
        for dataset in records.datasets(**page).items:
            records.dataset(dataset.id)
        for kind in ("safety_module", "kit"):
            for part in records.parts(kind, **page).items:
                records.part(kind, part.id)
        for endpoint in webhooks.endpoints(**page).items:
            webhooks.deliveries(endpoint.id, state=None, **page)
        verdicts.verdicts(VerdictFilter(), **page)
        keys.all()
        records.alignments(**page)
        found = records.jobs(status=None, kind=None, **page).items
        return len([records.any_job(job.id) for job in found])
