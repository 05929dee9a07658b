"""Deliveries in the database: due times, leases, ends. No test waits: the clock is the test's."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from app.domain.access import DEFAULT_TENANT
from app.domain.errors import InvalidField
from app.domain.retry import Step
from app.domain.room import Room
from app.domain.webhook import (
    MAX_LOGGED,
    DeliveryState,
)
from app.domain.webhook_errors import (
    DeliveryNotFound,
    WebhookDisabled,
    WebhookNotFound,
)
from app.storage.database import Database
from app.storage.records import SqlRecords
from app.storage.webhooks import SqlWebhooks
from tests.kept_webhooks import LEASE_S, REFUSED, Clock, an_endpoint, claimed, end, enqueued, listed


# ---------------------------------------------------------------------------------------- due times
def test_a_delivery_is_due_at_once_and_leased_to_one(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoint = webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock)
    (due,) = claimed(webhooks)
    assert (due.endpoint, due.tried) == (endpoint, 0)
    assert claimed(webhooks) == []
    clock.go_on(LEASE_S)
    (again,) = claimed(webhooks)
    assert (again.id, again.event, again.tried) == (due.id, due.event, 1)
    assert not webhooks.note_attempt(due, REFUSED, Step("delivered"))
    assert webhooks.note_attempt(again, REFUSED, Step("delivered"))
    assert webhooks.delivery(due.id).state == "delivered"


def test_two_senders_never_have_the_same_delivery(
    webhooks: SqlWebhooks, database: Database, database_url: str, clock: Clock
) -> None:
    webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock, 40)
    senders = [SqlWebhooks(database_url, clock=clock) for _ in range(4)]
    start = threading.Barrier(4)

    def claim(sender: SqlWebhooks) -> list[str]:
        start.wait()
        found: list[str] = []
        while due := claimed(sender, most=3, of_tenant=3, of_endpoint=3):
            found += [each.id for each in due]
        return found

    with ThreadPoolExecutor(4) as pool:
        ids = [each for found in pool.map(claim, senders) for each in found]
    for sender in senders:
        sender.close()
    assert len(ids) == len(set(ids))
    left = claimed(webhooks, most=99, of_tenant=99, of_endpoint=99)  # passed over while locked
    assert len(ids) + len(left) == 40


def test_a_failed_attempt_waits_until_it_is_due_and_is_logged(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock)
    (due,) = claimed(webhooks)
    assert webhooks.note_attempt(due, REFUSED, Step("pending", timedelta(seconds=5)))
    clock.go_on(4.9)
    assert claimed(webhooks) == []
    clock.go_on(0.2)
    (again,) = claimed(webhooks)
    assert (again.event, again.tried) == (due.event, 1)
    kept = webhooks.delivery(due.id)
    assert (kept.state, kept.attempts, kept.log) == ("pending", 2, (REFUSED,))


def test_the_log_keeps_the_last_attempts(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock)
    for number in range(MAX_LOGGED + 3):
        (due,) = claimed(webhooks)
        webhooks.note_attempt(due, replace(REFUSED, duration_ms=number), Step("pending"))
    kept = webhooks.delivery(due.id)
    assert [attempt.duration_ms for attempt in kept.log] == list(range(3, MAX_LOGGED + 3))
    assert kept.attempts == MAX_LOGGED + 3


def test_a_delivery_that_is_given_back_is_due_and_its_attempt_not_counted(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock)
    (due,) = claimed(webhooks)
    webhooks.release(due)
    (again,) = claimed(webhooks)
    assert again.tried == 0
    webhooks.release(due)  # too late: another has it
    assert claimed(webhooks) == []


def test_a_long_queue_of_one_endpoint_does_not_hide_anothers(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    busy = webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock, 250)
    other = webhooks.of("another").add(an_endpoint(), most=9)
    enqueued(database, clock, 3, tenant="another")
    found = [due.endpoint.id for due in claimed(webhooks, of_endpoint=2)]
    assert sorted(found) == sorted([busy.id, busy.id, other.id, other.id])


def test_what_is_under_way_counts_against_the_room(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoint = webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock, 5)
    room = Room(of_endpoint=2)
    room.take(DEFAULT_TENANT, endpoint.id)
    assert len(webhooks.claim_due(lease_s=LEASE_S, room=room)) == 1
    assert room.free == 31  # its owner counts by itself


# ----------------------------------------------------------------------------------- ends, and anew
def test_gone_disables_the_endpoint_and_ends_what_was_on_its_way(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoint = webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock, 3)
    due, under_way, *_ = claimed(webhooks)
    webhooks.note_attempt(due, REFUSED, Step("failed", disables="gone"))
    disabled = webhooks.endpoint(endpoint.id)
    assert (disabled.disabled_at, disabled.disabled_reason) == (clock.now, "gone")
    assert {each.state for each in listed(webhooks, endpoint)} == {"failed"}
    assert not webhooks.note_attempt(under_way, REFUSED, Step("delivered"))
    assert enqueued(database, clock) == 0
    with pytest.raises(WebhookDisabled):
        webhooks.redeliver(due.id)
    assert webhooks.enable(endpoint.id).disabled_at is None
    assert enqueued(database, clock) == 1
    assert webhooks.redeliver(due.id).state == "pending"


@pytest.mark.parametrize("state", ["delivered", "failed"])
def test_a_redelivery_is_due_at_once_with_the_schedule_before_it_and_the_same_id(
    webhooks: SqlWebhooks, database: Database, clock: Clock, state: DeliveryState
) -> None:
    webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock)
    (due,) = claimed(webhooks)
    webhooks.note_attempt(due, REFUSED, Step(state))
    assert webhooks.delivery(due.id).ended_at == clock.now
    clock.go_on(1000)
    again = webhooks.redeliver(due.id)
    assert (again.state, again.ended_at, again.due_at) == ("pending", None, clock.now)
    (due_again,) = claimed(webhooks)
    assert (due_again.event, due_again.tried) == (due.event, 0)
    assert webhooks.delivery(due.id).attempts == 2


def test_a_redelivery_of_one_that_is_under_way_is_not_sent_beside_it(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock)
    (due,) = claimed(webhooks)
    webhooks.redeliver(due.id)
    assert claimed(webhooks) == []
    assert webhooks.note_attempt(due, REFUSED, Step("delivered"))


@pytest.mark.parametrize("step", [Step("failed"), Step("pending", timedelta(days=1))], ids=str)
def test_a_redelivery_that_is_asked_for_during_an_attempt_that_fails_is_due_at_once(
    webhooks: SqlWebhooks, database: Database, clock: Clock, step: Step
) -> None:
    webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock)
    for _ in range(9):
        (due,) = claimed(webhooks)
        webhooks.note_attempt(due, REFUSED, Step("pending"))
    (last,) = claimed(webhooks)
    webhooks.redeliver(last.id)
    assert webhooks.note_attempt(last, REFUSED, step)
    kept = webhooks.delivery(last.id)
    assert (kept.state, kept.ended_at, len(kept.log)) == ("pending", None, 10)
    (again,) = claimed(webhooks)
    assert again.tried == 0


def test_a_redelivery_of_one_that_is_given_back_has_the_whole_schedule(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock)
    (due,) = claimed(webhooks)
    webhooks.redeliver(due.id)
    webhooks.release(due)
    (again,) = claimed(webhooks)
    assert again.tried == 0
    assert webhooks.note_attempt(again, REFUSED, Step("failed"))
    assert webhooks.delivery(due.id).state == "failed"


def test_a_deleted_endpoint_takes_its_deliveries_with_it(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoint, other = (webhooks.add(an_endpoint(), most=9) for _ in range(2))
    enqueued(database, clock, 2)
    due = next(due for due in claimed(webhooks) if due.endpoint.id == endpoint.id)
    webhooks.remove(endpoint.id)
    assert not webhooks.note_attempt(due, REFUSED, Step("failed", disables="gone"))
    with pytest.raises(WebhookNotFound):
        webhooks.endpoint(endpoint.id)
    with pytest.raises(DeliveryNotFound):
        webhooks.delivery(due.id)
    assert len(listed(webhooks, other)) == 2


def test_endpoints_may_go_while_jobs_end(
    webhooks: SqlWebhooks, records: SqlRecords, database: Database, clock: Clock
) -> None:
    """Neither waits for ever, and no end fails for it."""
    start, endpoints = threading.Barrier(2), [webhooks.add(an_endpoint(), most=9) for _ in range(9)]

    def remove() -> None:
        start.wait()
        for endpoint in endpoints:
            webhooks.remove(endpoint.id)

    with ThreadPoolExecutor(1) as pool:
        removed = pool.submit(remove)
        start.wait()
        for _ in range(15):
            end(records, "failed")
        removed.result()
    assert claimed(webhooks) == []


def test_ended_deliveries_go_after_their_time_and_pending_ones_stay(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoint = webhooks.add(an_endpoint(), most=9)
    clock.go_on(-3600)
    enqueued(database, clock, 2)
    (due, other) = claimed(webhooks)
    webhooks.note_attempt(due, REFUSED, Step("delivered"))
    webhooks.note_attempt(other, REFUSED, Step("pending"))
    assert webhooks.expire(timedelta(hours=2), dry_run=False) == 0
    assert webhooks.expire(timedelta(minutes=30), dry_run=True) == 1
    assert webhooks.expire(timedelta(minutes=30), dry_run=False) == 1
    assert [each.id for each in listed(webhooks, endpoint)] == [other.id]


def test_deliveries_are_listed_newest_first_by_state_and_page(
    webhooks: SqlWebhooks, database: Database, clock: Clock
) -> None:
    endpoint = webhooks.add(an_endpoint(), most=9)
    enqueued(database, clock, 3)
    everything = listed(webhooks, endpoint)
    (due, *_) = claimed(webhooks)
    webhooks.note_attempt(due, REFUSED, Step("delivered"))
    first = webhooks.deliveries(endpoint.id, state="pending", limit=1, cursor=None)
    rest = webhooks.deliveries(endpoint.id, state="pending", limit=1, cursor=first.cursor)
    assert [first.items[0].id, rest.items[0].id] == [each.id for each in everything[:2]]
    assert rest.cursor is None
    (done,) = webhooks.deliveries(endpoint.id, state="delivered", limit=5, cursor=None).items
    assert done.id == everything[2].id
    with pytest.raises(InvalidField, match="cursor"):
        webhooks.deliveries(endpoint.id, state=None, limit=1, cursor="wrong")
