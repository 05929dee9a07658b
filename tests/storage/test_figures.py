"""What the database is counted for."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import Unavailable
from app.storage.figures import SqlFigures
from app.storage.records import SqlRecords
from tests.samples import a_kept_job


def test_jobs_are_counted_by_kind_and_status_over_all_tenants(
    records: SqlRecords, database_url: str
) -> None:
    figures = SqlFigures(database_url)
    assert figures.figures().jobs == {}
    a_kept_job(records)
    a_kept_job(records, kind="score")
    claimed = a_kept_job(records.of("another"))
    records.claim(claimed.id, lease_s=60)
    expected = {("patch", "queued"): 1, ("score", "queued"): 1, ("patch", "running"): 1}
    assert figures.figures().jobs == expected
    figures.close()


def test_the_oldest_queued_job_is_told_by_its_age(records: SqlRecords, database_url: str) -> None:
    figures = SqlFigures(database_url)
    assert figures.figures().oldest_queued_s == 0
    for minutes in (5, 1):
        a_kept_job(records, created_at=datetime.now(UTC) - timedelta(minutes=minutes))
    assert figures.figures().oldest_queued_s == pytest.approx(300, abs=30)
    figures.close()


def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        SqlFigures("sqlite:////no/such/folder/records.sqlite3").figures()
