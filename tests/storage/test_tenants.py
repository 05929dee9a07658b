"""What is one tenant's is not there for another; quotas are a tenant's own."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from app.domain.access_errors import QuotaExceeded
from app.domain.errors import AdapterNotFound, JobNotFound
from app.jobs.ports import IdempotencyKey
from app.storage import migrate
from app.storage.records import SqlRecords
from tests.samples import a_job, an_adapter

KEY = IdempotencyKey("key", "0" * 64)


def test_an_adapter_is_its_tenants_own(records: SqlRecords) -> None:
    adapter = an_adapter()
    ours, theirs = records.of("a"), records.of("b")
    assert ours.add_adapter(adapter)
    assert ours.adapter(adapter.id).id == adapter.id
    with pytest.raises(AdapterNotFound):
        theirs.adapter(adapter.id)
    assert theirs.adapters(limit=10, cursor=None).items == []


def test_the_same_content_may_be_several_tenants(records: SqlRecords) -> None:
    adapter = an_adapter()
    assert records.of("a").add_adapter(adapter)
    assert records.of("b").add_adapter(adapter)
    assert not records.of("b").add_adapter(adapter)
    for tenant in ("a", "b"):
        listed = records.of(tenant).adapters(limit=10, cursor=None).items
        assert [found.id for found in listed] == [adapter.id]


def test_a_job_is_its_tenants_own(records: SqlRecords) -> None:
    adapter, ours, theirs = an_adapter(), records.of("a"), records.of("b")
    ours.add_adapter(adapter)
    theirs.add_adapter(adapter)
    job = ours.add_job(a_job(adapter), None)
    assert job.tenant == "a"
    for attempt in (theirs.job, theirs.request_cancel):
        with pytest.raises(JobNotFound):
            attempt(job.id)
    assert theirs.jobs(status=None, kind=None, limit=10, cursor=None).items == []
    assert ours.job(job.id).status == "queued"


def test_a_worker_takes_every_tenants_jobs_and_knows_whose_they_are(records: SqlRecords) -> None:
    adapter = an_adapter()
    jobs = {}
    for tenant in ("a", "b"):
        records.of(tenant).add_adapter(adapter)
        jobs[tenant] = records.of(tenant).add_job(a_job(adapter), None)
    first = records.claim(jobs["a"].id, lease_s=60)
    assert first is not None
    assert first.tenant == "a"
    (other,) = records.claim_companions(first, lease_s=60, most=8, most_bytes=10**9)
    assert (other.id, other.tenant) == (jobs["b"].id, "b")


def test_an_idempotency_key_is_its_tenants_own(records: SqlRecords) -> None:
    adapter = an_adapter()
    made = []
    for tenant in ("a", "b"):
        records.of(tenant).add_adapter(adapter)
        made.append(records.of(tenant).add_job(a_job(adapter), KEY))
    assert made[0].id != made[1].id
    found = records.of("a").job_for_key(KEY)
    assert found is not None
    assert found.id == made[0].id


def test_the_quota_of_bytes_counts_each_adapter_once(records: SqlRecords) -> None:
    first, second = an_adapter(), an_adapter()
    most = first.size_bytes + second.size_bytes - 1
    ours = records.of("a")
    assert ours.add_adapter(first, most_bytes=most)
    assert not ours.add_adapter(first, most_bytes=most)
    with pytest.raises(QuotaExceeded, match="bytes"):
        ours.add_adapter(second, most_bytes=most)
    assert records.of("b").add_adapter(second, most_bytes=most)


def test_the_quota_of_jobs_counts_those_that_have_not_ended(records: SqlRecords) -> None:
    adapter, ours = an_adapter(), records.of("a")
    ours.add_adapter(adapter)
    job = ours.add_job(a_job(adapter), KEY, most_queued=1)
    with pytest.raises(QuotaExceeded, match="jobs"):
        ours.add_job(a_job(adapter), None, most_queued=1)
    again = a_job(adapter)
    assert ours.add_job(again, KEY, most_queued=1).id == job.id  # nothing new
    ours.request_cancel(job.id)
    ours.add_job(a_job(adapter), None, most_queued=1)


def test_a_request_over_the_quota_leaves_its_idempotency_key_free(records: SqlRecords) -> None:
    adapter, ours = an_adapter(), records.of("a")
    ours.add_adapter(adapter)
    first = ours.add_job(a_job(adapter), None, most_queued=1)
    with pytest.raises(QuotaExceeded):
        ours.add_job(a_job(adapter), KEY, most_queued=1)
    assert ours.job_for_key(KEY) is None
    ours.request_cancel(first.id)
    ours.add_job(a_job(adapter), KEY, most_queued=1)


def test_racing_requests_stay_within_the_quota(records: SqlRecords) -> None:
    adapter, ours = an_adapter(), records.of("a")
    ours.add_adapter(adapter)
    start, refused = threading.Barrier(8), []

    def submit() -> None:
        start.wait()
        try:
            ours.add_job(a_job(adapter), None, most_queued=3)
        except QuotaExceeded as error:
            refused.append(error)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert len(ours.jobs(status=None, kind=None, limit=10, cursor=None).items) == 3


def test_what_was_there_before_tenants_is_the_default_tenants(
    empty_database_url: str, tmp_path: Path
) -> None:
    url = empty_database_url
    migrate.upgrade(url)
    records = SqlRecords(url)
    adapter = an_adapter()
    records.add_adapter(adapter)
    job = records.add_job(a_job(adapter), KEY)
    records.of("other").add_adapter(adapter)
    records.close()
    migrate.downgrade(url, "0001")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM adapters")).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 1
    engine.dispose()
    migrate.upgrade(url)
    again = SqlRecords(url)
    assert again.adapter(adapter.id) == adapter
    found = again.job_for_key(KEY)
    assert found is not None
    assert (found.id, found.tenant) == (job.id, "default")
    again.request_cancel(job.id)
    with pytest.raises(AdapterNotFound):
        again.of("other").adapter(adapter.id)
    again.close()
