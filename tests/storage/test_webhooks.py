"""Endpoints and events in the database. No test waits: the clock is the test's."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from app.domain.errors import JobNotFound, WorkerFault
from app.domain.job import Fault, JobStatus
from app.domain.webhook import MAX_SECRETS
from app.domain.webhook_errors import DeliveryNotFound, TooManyWebhooks, WebhookNotFound
from app.storage import job_moves
from app.storage.database import Database
from app.storage.records import SqlRecords
from app.storage.webhook_events import enqueue_event
from app.storage.webhooks import SqlWebhooks
from tests.kept_webhooks import Clock, an_endpoint, end, enqueued, listed
from tests.samples import a_kept_job


# ---------------------------------------------------------------------------------------- endpoints
def test_an_endpoint_is_kept_as_it_is(webhooks: SqlWebhooks) -> None:
    endpoint = an_endpoint()
    webhooks.add(endpoint, most=2)
    assert webhooks.endpoint(endpoint.id) == endpoint
    assert webhooks.endpoints(limit=10, cursor=None).items == [endpoint]


def test_an_endpoint_and_its_deliveries_are_their_tenants_own(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    ours, theirs = webhooks.of("a"), webhooks.of("b")
    endpoint = ours.add(an_endpoint(), most=2)
    assert enqueued(database, clock, tenant="b") == 0
    assert enqueued(database, clock, tenant="a") == 1
    (delivery,) = listed(ours, endpoint)
    for attempt in (theirs.endpoint, theirs.remove, theirs.enable):
        with pytest.raises(WebhookNotFound):
            attempt(endpoint.id)
    with pytest.raises(WebhookNotFound):
        theirs.rotate(endpoint.id, "whsec_2")
    with pytest.raises(WebhookNotFound):
        listed(theirs, endpoint)
    for attempt in (theirs.delivery, theirs.redeliver):
        with pytest.raises(DeliveryNotFound):
            attempt(delivery.id)
    assert theirs.endpoints(limit=10, cursor=None).items == []
    assert ours.endpoint(endpoint.id) == endpoint


@pytest.mark.parametrize("wrong", ["none", "\x00", "\ud800", "\u00e9"])
def test_an_id_that_is_none_is_not_found(webhooks: SqlWebhooks, wrong: str) -> None:
    with pytest.raises(WebhookNotFound):
        webhooks.endpoint(wrong)
    with pytest.raises(DeliveryNotFound):
        webhooks.delivery(wrong)


def test_a_tenant_has_a_bounded_number_of_endpoints_also_where_requests_race(
    webhooks: SqlWebhooks,
) -> None:
    start, refused = threading.Barrier(8), []

    def add() -> None:
        start.wait()
        try:
            webhooks.add(an_endpoint(), most=3)
        except TooManyWebhooks as error:
            refused.append(error)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(add)
    assert (len(refused), len(webhooks.endpoints(limit=10, cursor=None).items)) == (5, 3)
    webhooks.of("another").add(an_endpoint(), most=3)


def test_a_rotated_secret_signs_for_a_day_beside_the_new_one(
    webhooks: SqlWebhooks, clock: Clock
) -> None:
    endpoint = webhooks.add(an_endpoint(), most=1)
    rotated = webhooks.rotate(endpoint.id, "whsec_2")
    assert webhooks.endpoint(endpoint.id) == rotated
    assert rotated.signing(clock.now + timedelta(hours=23)) == ["whsec_2", "whsec_1"]
    clock.go_on(24 * 3600)
    assert webhooks.endpoint(endpoint.id).signing(clock.now) == ["whsec_2"]
    again = webhooks.rotate(endpoint.id, "whsec_3")
    assert [secret.text for secret in again.secrets] == ["whsec_3", "whsec_2"]


def test_rotating_often_keeps_the_last_few(webhooks: SqlWebhooks, clock: Clock) -> None:
    endpoint = webhooks.add(an_endpoint(), most=1)
    for number in range(2, 7):
        webhooks.rotate(endpoint.id, f"whsec_{number}")
    signing = webhooks.endpoint(endpoint.id).signing(clock.now)
    assert signing == ["whsec_6", "whsec_5", "whsec_4"]
    assert len(signing) == MAX_SECRETS


# ------------------------------------------------------------------------------------------- events
@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_job_that_ends_is_told_to_those_who_asked(
    webhooks: SqlWebhooks, records: SqlRecords, status: JobStatus
) -> None:
    asked = webhooks.add(an_endpoint("job.succeeded", "job.failed"), most=9)
    other = webhooks.add(an_endpoint("verdict.issued"), most=9)
    theirs = webhooks.of("another").add(an_endpoint(), most=9)
    job_id = end(records, status)
    (delivery,) = listed(webhooks, asked)
    assert (delivery.event_type, delivery.state) == (f"job.{status}", "pending")
    assert job_id in webhooks.delivery(delivery.id).body
    assert listed(webhooks, other) == listed(webhooks.of("another"), theirs) == []


def test_a_cancelled_job_is_no_event(webhooks: SqlWebhooks, records: SqlRecords) -> None:
    endpoint = webhooks.add(an_endpoint(), most=9)
    end(records, "cancelled")
    assert listed(webhooks, endpoint) == []


def test_an_end_that_is_rolled_back_sends_nothing(
    webhooks: SqlWebhooks, records: SqlRecords, database: Database
) -> None:
    endpoint, job = webhooks.add(an_endpoint(), most=9), a_kept_job(records)
    held = records.claim(job.id, lease_s=60)
    assert held is not None

    def finish_and_break() -> None:
        with database.write() as connection:
            job_moves.finish(
                connection,
                job.id,
                fence=held.fence,
                status="failed",
                result=None,
                fault=Fault.of(WorkerFault(kind="x")),
            )
            raise JobNotFound(job="what else the transaction wanted")

    with pytest.raises(JobNotFound):
        finish_and_break()
    assert records.job(job.id).status == "running"
    assert listed(webhooks, endpoint) == []
    records.finish(job.id, fence=held.fence, status="failed")
    assert len(listed(webhooks, endpoint)) == 1


def test_one_event_has_one_id_for_all_who_are_told(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoints = [webhooks.add(an_endpoint(), most=9) for _ in range(2)]
    assert enqueued(database, clock, 2) == 4
    told = [[each.event for each in listed(webhooks, endpoint)] for endpoint in endpoints]
    assert told[0] == told[1]
    assert len(set(told[0])) == 2


def test_a_verdict_is_told_in_the_transaction_that_issues_it(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoint = webhooks.add(an_endpoint("verdict.issued"), most=9)
    with database.write() as connection:
        told = enqueue_event(connection, "default", "verdict.issued", {"digest": "d"}, clock.now)
    assert told == 1
    (delivery,) = listed(webhooks, endpoint)
    assert json.loads(webhooks.delivery(delivery.id).body)["data"] == {"digest": "d"}


def test_an_event_that_is_too_large_is_refused_whole(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoint = webhooks.add(an_endpoint("verdict.issued"), most=9)
    huge = {"text": "a" * 20_000}
    with database.write() as connection, pytest.raises(ValueError, match="20000"):
        enqueue_event(connection, "default", "verdict.issued", huge, clock.now)
    assert listed(webhooks, endpoint) == []
