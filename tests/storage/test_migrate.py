"""Migrations, on SQLite and PostgreSQL."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, Table, create_engine, inspect, text, update

from app.domain.adapter import FileEntry
from app.domain.dataset import StoredDataset
from app.domain.errors import Unavailable
from app.domain.evaluation import EvaluateRecipe, FrontierRecipe, GateRecipe, Sets, Subject
from app.domain.job import Job, JobResult
from app.domain.method import Method
from app.domain.salora import InitRecipe, Part, TrainRecipe
from app.jobs.ports import IdempotencyKey
from app.storage import migrate
from app.storage.records import SqlRecords
from app.storage.rows import job_values, method_json
from app.storage.salora_rows import dataset_values, part_values
from app.storage.tables import datasets, idempotency_keys, job_uses, jobs, metadata, parts
from tests.samples import (
    a_dataset,
    a_job,
    a_kept_job,
    a_measure_job,
    a_part,
    a_salora_job,
    an_adapter,
)

ROOT = Path(__file__).parents[2]
UPGRADE = "import sys; from app.storage import migrate; migrate.upgrade(sys.argv[1])"


def engine_of(url: str) -> Engine:
    return create_engine(url)


def table_names(url: str) -> set[str]:
    engine = engine_of(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def test_the_tables_and_the_migrations_agree(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    engine = engine_of(empty_database_url)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert difference == []


def test_an_upgrade_ends_at_the_head_and_may_run_again(empty_database_url: str) -> None:
    for _ in range(2):
        migrate.upgrade(empty_database_url)
        assert migrate.current(empty_database_url) == migrate.head() is not None


def test_a_downgrade_takes_everything_away_and_an_upgrade_brings_it_back(
    empty_database_url: str,
) -> None:
    migrate.upgrade(empty_database_url)
    tables = table_names(empty_database_url)
    migrate.downgrade(empty_database_url, "base")
    assert table_names(empty_database_url) == {"alembic_version"}
    assert migrate.current(empty_database_url) is None
    migrate.upgrade(empty_database_url)
    assert table_names(empty_database_url) == tables >= set(metadata.tables)


def test_what_the_old_code_can_read_survives_a_downgrade_and_what_it_cannot_goes(
    empty_database_url: str,
) -> None:
    migrate.upgrade(empty_database_url)
    records = SqlRecords(empty_database_url)
    adapter, dataset, part = an_adapter(), a_dataset(), a_part()
    records.add_adapter(adapter)
    records.add_dataset(dataset)
    records.add_part(part)
    old = records.add_job(a_job(adapter), IdempotencyKey("old", "0"))
    recipe = InitRecipe(part.id, dataset.id)
    records.add_job(a_salora_job("salora_init", recipe), IdempotencyKey("new", "0"))
    salora = Method(name="salora", safety_module=part.id)
    records.add_job(a_job(adapter, method=salora), IdempotencyKey("new too", "0"))
    records.close()
    migrate.downgrade(empty_database_url, "0002")
    migrate.upgrade(empty_database_url)
    again = SqlRecords(empty_database_url)
    found = again.jobs(status=None, kind=None, limit=10, cursor=None).items
    assert list(found) == [old]
    assert again.job_for_key(IdempotencyKey("old", "0")) == old
    assert again.job_for_key(IdempotencyKey("new", "0")) is None
    assert again.adapter(adapter.id) == adapter
    again.close()


def test_evaluations_go_with_a_downgrade_and_what_was_there_before_them_stays(
    empty_database_url: str,
) -> None:
    migrate.upgrade(empty_database_url, "0003")
    dataset, kit, old = salora_from_before(empty_database_url)
    for _ in range(2):
        migrate.upgrade(empty_database_url)
        records = SqlRecords(empty_database_url)
        assert (records.dataset(dataset.id), records.job(old.id)) == (dataset, old)
        prompts = a_dataset(unanswered=1)
        records.add_dataset(prompts)
        new = measuring_jobs(records, old, prompts.id)
        records.close()
        migrate.downgrade(empty_database_url, "0003")
        assert rows_of(empty_database_url, "jobs", "id") == [old.id]
        assert rows_of(empty_database_url, "datasets", "id") == [dataset.id]
        named = {(old.id, dataset.id, None), (old.id, None, kit.id)}
        assert set(rows_of(empty_database_url, "job_uses", "job, dataset, part")) == named
        keys = rows_of(empty_database_url, "idempotency_keys", "job")
        assert keys == [old.id]
        assert not {job.id for job in new} & set(keys)


def salora_from_before(url: str) -> tuple[StoredDataset, Part, Job]:
    """A training and what it names, as the code of 0003 has kept them."""
    dataset, kit = a_dataset(), a_part("kit")
    job = a_salora_job("salora_train", TrainRecipe(kit.id, dataset.id))
    now = datetime.now(UTC)
    old_dataset = dataset_values(dataset, job.tenant, now)
    del old_dataset["unanswered"]
    old_job = job_values(job, queued_at=now)
    for later in ("revisions", "request_id", "traceparent"):
        del old_job[later]
    key = {"tenant": job.tenant, "key": "old", "request_sha256": "0", "job": job.id}
    use = {"job": job.id, "tenant": job.tenant}
    rows: list[tuple[Table, dict[str, Any]]] = [
        (datasets, old_dataset),
        (parts, part_values(kit, job.tenant, now)),
        (jobs, old_job),
        (job_uses, {**use, "dataset": dataset.id}),
        (job_uses, {**use, "part_kind": "kit", "part": kit.id}),
        (idempotency_keys, {**key, "created_at": now}),
    ]
    engine = engine_of(url)
    with engine.begin() as connection:
        for table, values in rows:
            connection.execute(table.insert().values(values))
    engine.dispose()
    return dataset, kit, job


def measuring_jobs(records: SqlRecords, made: Job, dataset: str) -> list[Job]:
    """One of each kind, under keys."""
    adapter, sets = an_adapter(), Sets(harmful=dataset, task=dataset)
    records.add_adapter(adapter)
    subjects = (Subject("a", adapter.id), Subject("b", job=made.id))
    new = [
        a_measure_job("evaluate", EvaluateRecipe(sets, subjects)),
        a_measure_job("frontier", FrontierRecipe(sets), adapter=adapter.id, base_model="b"),
        a_job(adapter, recipe=GateRecipe(sets)),
    ]
    return [records.add_job(job, IdempotencyKey(job.id, "0")) for job in new]


def rows_of(url: str, table: str, columns: str) -> list[Any]:
    engine = engine_of(url)
    with engine.connect() as connection:
        found = connection.execute(text(f"SELECT {columns} FROM {table}")).all()
    engine.dispose()
    return [row[0] if len(row) == 1 else tuple(row) for row in found]


def test_a_method_from_before_safety_modules_is_still_read(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    records = SqlRecords(empty_database_url)
    job = a_kept_job(records)
    method = {
        key: value for key, value in method_json(job.method).items() if key != "safety_module"
    }
    result = {"report": {"sha256": "0" * 64, "size_bytes": 1}, "archive": None}
    engine = engine_of(empty_database_url)
    with engine.begin() as connection:
        connection.execute(update(jobs).values(method=method, result=result))
    engine.dispose()
    found = records.job(job.id)
    assert found.method == job.method
    assert found.result == JobResult(FileEntry("0" * 64, 1), None)
    assert records.named_files() >= {"0" * 64}
    records.close()


def test_processes_may_upgrade_at_once(empty_database_url: str) -> None:
    command = [sys.executable, "-c", UPGRADE, empty_database_url]
    upgrades = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [upgrade.wait(timeout=60) for upgrade in upgrades] == [0] * 3
    assert migrate.current(empty_database_url) == migrate.head()


def test_a_migrated_sqlite_file_is_in_wal_mode(sqlite_with_schema: Path) -> None:
    engine = engine_of(f"sqlite:///{sqlite_with_schema}")
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
    engine.dispose()


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="database"):
        migrate.upgrade("postgresql+psycopg://nobody@127.0.0.1:1/none")
