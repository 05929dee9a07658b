"""The records on SQLite and PostgreSQL: what is kept, listed, and kept only once."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from app.domain.errors import (
    AdapterNotFound,
    IdempotencyKeyReused,
    InvalidField,
    JobNotFound,
    Unavailable,
)
from app.domain.job import Job
from app.domain.method import Method, Selection
from app.jobs.ports import IdempotencyKey
from app.storage.pages import encode_cursor
from app.storage.records import SqlRecords
from tests.samples import a_job, a_kept_job, an_adapter

NOT_IDS = ["", "no-such", "\x00", "\ud800", "é", "a" * 5000]


def test_an_adapter_comes_back_as_it_was_kept(records: SqlRecords) -> None:
    adapter = an_adapter()
    assert records.add_adapter(adapter)
    assert records.adapter(adapter.id) == adapter


def test_an_adapter_kept_twice_is_kept_as_it_was_first(records: SqlRecords) -> None:
    adapter = an_adapter()
    records.add_adapter(adapter)
    assert not records.add_adapter(replace(adapter, base_model_name="another"))
    assert records.adapter(adapter.id) == adapter


@pytest.mark.parametrize("adapter_id", NOT_IDS)
def test_an_unknown_adapter_is_not_found(records: SqlRecords, adapter_id: str) -> None:
    with pytest.raises(AdapterNotFound):
        records.adapter(adapter_id)


@pytest.mark.parametrize("job_id", NOT_IDS)
def test_an_unknown_job_is_not_found(records: SqlRecords, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        records.job(job_id)
    with pytest.raises(JobNotFound):
        records.request_cancel(job_id)


@pytest.mark.parametrize(
    "method",
    [
        Method(),
        Method("complement", rank=4, select=Selection("all", None)),
        Method("subspace", energy=1.0, select=Selection("fraction", 0.1)),
    ],
)
def test_a_job_comes_back_as_it_was_kept(records: SqlRecords, method: Method) -> None:
    job = a_kept_job(records, method=method)
    assert records.job(job.id) == job


def test_times_come_back_in_utc_whatever_zone_they_were_given_in(records: SqlRecords) -> None:
    there = datetime(2026, 7, 1, 12, 30, 15, 123456, timezone(timedelta(hours=5, minutes=30)))
    job = records.job(a_kept_job(records, created_at=there).id)
    assert job.created_at == there
    assert job.created_at.tzinfo is UTC


def test_a_job_of_an_unknown_adapter_is_not_kept(records: SqlRecords) -> None:
    job = a_job(an_adapter())
    with pytest.raises(AdapterNotFound, match=job.only_adapter):
        records.add_job(job, IdempotencyKey("key", "digest"))
    assert records.job_for_key(IdempotencyKey("key", "digest")) is None


# -------------------------------------------------------------------------------- idempotency
def test_a_key_used_again_for_the_same_request_gives_the_first_job(records: SqlRecords) -> None:
    adapter = an_adapter()
    records.add_adapter(adapter)
    key = IdempotencyKey("key", "digest")
    assert records.job_for_key(key) is None
    first = records.add_job(a_job(adapter), key)
    assert records.add_job(a_job(adapter), key) == first
    assert records.job_for_key(key) == first
    assert list(records.jobs(status=None, kind=None, limit=10, cursor=None).items) == [first]


def test_a_key_used_again_for_another_request_is_refused(records: SqlRecords) -> None:
    adapter = an_adapter()
    records.add_adapter(adapter)
    records.add_job(a_job(adapter), IdempotencyKey("key", "digest"))
    other = IdempotencyKey("key", "other digest")
    with pytest.raises(IdempotencyKeyReused):
        records.add_job(a_job(adapter), other)
    with pytest.raises(IdempotencyKeyReused):
        records.job_for_key(other)
    assert len(records.jobs(status=None, kind=None, limit=10, cursor=None).items) == 1


def test_of_requests_that_race_under_one_key_one_makes_the_job(records: SqlRecords) -> None:
    adapter = an_adapter()
    records.add_adapter(adapter)
    start = threading.Barrier(8)

    def submit(_: int) -> Job:
        start.wait()
        return records.add_job(a_job(adapter), IdempotencyKey("key", "digest"))

    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(submit, range(8)))
    assert len({job.id for job in jobs}) == 1
    kept = records.jobs(status=None, kind=None, limit=10, cursor=None).items
    assert [job.id for job in kept] == [jobs[0].id]


# -------------------------------------------------------------------------------------- pages
def test_pages_go_from_new_to_old_and_end(records: SqlRecords) -> None:
    ids = [a_kept_job(records).id for _ in range(5)]
    assert walk(records) == ids[::-1]


def test_a_job_made_between_two_pages_shifts_nothing(records: SqlRecords) -> None:
    ids = [a_kept_job(records).id for _ in range(4)]
    first = records.jobs(status=None, kind=None, limit=2, cursor=None)
    newest = a_kept_job(records).id
    second = records.jobs(status=None, kind=None, limit=2, cursor=first.cursor)
    assert [job.id for job in (*first.items, *second.items)] == ids[::-1]
    assert second.cursor is None
    assert walk(records)[0] == newest


def test_adapters_are_listed_newest_first(records: SqlRecords) -> None:
    adapters = [an_adapter() for _ in range(3)]
    for adapter in adapters:
        records.add_adapter(adapter)
    first = records.adapters(limit=2, cursor=None)
    rest = records.adapters(limit=2, cursor=first.cursor)
    listed = [*first.items, *rest.items]
    assert [item.id for item in listed] == [adapter.id for adapter in adapters[::-1]]
    assert [(item.modules, item.size_bytes) for item in listed] == [
        (len(adapter.modules), adapter.size_bytes) for adapter in adapters[::-1]
    ]
    assert listed[0].base_model_name == adapters[-1].base_model_name


def test_jobs_are_listed_by_status_and_kind(records: SqlRecords) -> None:
    queued, running = a_kept_job(records).id, a_kept_job(records).id
    records.claim(running, lease_s=60)
    found = records.jobs(status="running", kind="patch", limit=10, cursor=None).items
    assert [job.id for job in found] == [running]
    found = records.jobs(status="queued", kind=None, limit=10, cursor=None).items
    assert [job.id for job in found] == [queued]


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "!!!", "é", "\x00", "MQ", "am9iczo", "A" * 100),
        *(encode_cursor("jobs", seq) for seq in (-1, 10**18, 10**30)),
        encode_cursor("adapters", 1),
    ],
)
def test_a_cursor_we_did_not_make_is_refused(records: SqlRecords, cursor: str) -> None:
    with pytest.raises(InvalidField, match="cursor"):
        records.jobs(status=None, kind=None, limit=10, cursor=cursor)


def walk(records: SqlRecords) -> list[str]:
    """The ids of all jobs, two at a time."""
    ids: list[str] = []
    cursor = None
    while True:
        page = records.jobs(status=None, kind=None, limit=2, cursor=cursor)
        ids += [job.id for job in page.items]
        cursor = page.cursor
        if cursor is None:
            return ids


# ------------------------------------------------------------------------------- availability
def test_a_database_with_its_schema_passes_the_check(records: SqlRecords) -> None:
    records.check()


def test_a_database_without_its_schema_is_unavailable(empty_database_url: str) -> None:
    records = SqlRecords(empty_database_url)
    with pytest.raises(Unavailable, match="database"):
        records.check()
    records.close()


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://nobody@127.0.0.1:1/none", "sqlite:////no/such/folder/x.sqlite3"]
)
def test_a_database_that_does_not_answer_is_unavailable(url: str) -> None:
    records = SqlRecords(url)
    with pytest.raises(Unavailable, match="database"):
        records.check()
    with pytest.raises(Unavailable, match="database"):
        records.job("any")
    records.close()


def test_a_closed_database_opens_again(records: SqlRecords) -> None:
    job = a_kept_job(records)
    records.close()
    assert records.job(job.id) == job


def test_a_sqlite_reader_does_not_wait_for_a_writer(
    sqlite_with_schema: Path, tmp_path: Path
) -> None:
    shutil.copy(sqlite_with_schema, tmp_path / "own.sqlite3")
    records = SqlRecords(f"sqlite:///{tmp_path / 'own.sqlite3'}")
    job = a_kept_job(records)
    with records._database.write():
        assert records.job(job.id) == job
    records.close()
