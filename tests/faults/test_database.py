"""A database that goes away, and clocks that disagree."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from app.storage import database
from app.storage.records import SqlRecords
from tests.factory import World
from tests.faults.checks import assert_all_is_well
from tests.faults.conftest import MakeSite
from tests.faults.postgres import PostgresServer
from tests.faults.processes import frozen, until
from tests.faults.undisturbed import Undisturbed
from tests.samples import a_kept_job


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


def test_jobs_outlive_a_database_that_crashes_and_recovers(
    make_site: MakeSite, postgres: PostgresServer, world: World, undisturbed: Undisturbed
) -> None:
    """The one that runs goes on meanwhile, and is not begun again."""
    site = make_site(database_url=postgres.url, lease_s=10)
    site.start_worker()
    site.start_api()
    adapter = site.upload(world.adapter)
    jobs = [site.submit(adapter) for _ in range(3)]
    site.await_module(jobs[0])
    with frozen(site.workers[0]):
        postgres.crash()
    until(lambda: "a heartbeat of job" in site.log_of_workers(), "the worker notices")
    postgres.start()
    assert_all_is_well(site, dict.fromkeys(jobs, 1), undisturbed)
    assert site.job(jobs[0]).fence == 1


class AnHourAhead(datetime):
    """The clock of a machine whose time is wrong."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override] # always in UTC
        return datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_worker_whose_clock_is_ahead_takes_no_job_from_another(
    records: SqlRecords, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL, which machines share: a lease is told by the database's clock alone."""
    job = a_kept_job(records)
    assert records.claim(job.id, lease_s=60)
    monkeypatch.setattr(database, "datetime", AnHourAhead)
    assert records.claim(job.id, lease_s=60) is None
    assert records.take_orphans(queued_for_s=0, queue_is_short=True) == []
    records.heartbeat(job.id, fence=1, lease_s=60, modules_done=1, modules_total=2)
    monkeypatch.undo()
    assert records.claim(job.id, lease_s=60) is None
