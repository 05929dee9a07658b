"""Deliveries from the database to a receiver. No test waits for a due time: the clock is moved."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from app.domain.callback import CallbackRules, parse_allowed
from app.domain.errors import Unavailable
from app.domain.retry import SCHEDULE_S
from app.domain.room import Room
from app.domain.signing import new_secret
from app.domain.webhook import Delivery, Due, Endpoint, Outcome
from app.jobs.deliver import LEASE_S, OWN_FAULT, Sender
from app.jobs.webhooks import register, rotate
from app.storage.callbacks import HttpPoster
from app.storage.database import Database
from app.storage.webhooks import SqlWebhooks
from tests.kept_webhooks import Clock, enqueued
from tests.webhooks_receiver import Answer, Receiver

RULES = CallbackRules(parse_allowed(["127.0.0.0/8"]))


class Kept:
    """One database, and what is in it."""

    def __init__(self, url: str) -> None:
        self.database, self.clock = Database(url), Clock()
        self.webhooks = SqlWebhooks(self.database, clock=self.clock)
        self.poster = HttpPoster(RULES, timeout_s=2.0)

    def close(self) -> None:
        self.database.close()
        self.poster.close()

    def endpoint(self, receiver: Receiver, tenant: str = "default") -> Endpoint:
        return register(
            receiver.url, ["job.failed"], "", rules=RULES, webhooks=self.webhooks.of(tenant)
        )

    def enqueue(self, count: int = 1, tenant: str = "default") -> None:
        enqueued(self.database, self.clock, count, tenant)

    def sender(self, **bounds: int) -> Sender:
        return Sender(self.webhooks, self.poster, room=Room(**bounds), jitter=lambda: 0.0)

    def send(self) -> None:
        """One round of a sender that is new each time, as after a restart."""

        async def once() -> None:
            sender = self.sender()
            await sender.round()
            await sender.settle()

        asyncio.run(once())

    def deliveries(self, endpoint: Endpoint) -> list[Delivery]:
        page = self.webhooks.deliveries(endpoint.id, state=None, limit=200, cursor=None)
        return [self.webhooks.delivery(each.id) for each in page.items]


@pytest.fixture
def kept(database_url: str) -> Iterator[Kept]:
    kept = Kept(database_url)
    yield kept
    kept.close()


def test_what_is_due_is_sent_once_signed_and_logged(kept: Kept) -> None:
    with Receiver(Answer(200, body=b"thank you")) as receiver:
        endpoint = kept.endpoint(receiver)
        kept.enqueue()
        kept.send()
        kept.send()
    (came,) = receiver.received
    (delivery,) = kept.deliveries(endpoint)
    assert came.verified(endpoint.secrets[0].text)["data"] == {"number": 0}
    assert came.headers["webhook-id"] == delivery.event
    assert came.headers["content-type"] == "application/json"
    assert (delivery.state, delivery.attempts) == ("delivered", 1)
    (attempt,) = delivery.log
    assert (attempt.status, attempt.error, attempt.response) == (200, None, "thank you")


def test_after_a_rotation_both_secrets_verify_for_a_day(kept: Kept) -> None:
    with Receiver() as receiver:
        endpoint = kept.endpoint(receiver)
        rotated = rotate(endpoint.id, webhooks=kept.webhooks)
        kept.enqueue()
        kept.send()
    (came,) = receiver.received
    old, new = endpoint.secrets[0].text, rotated.secrets[0].text
    assert old != new
    assert came.verified(old) == came.verified(new)


def test_a_receiver_that_never_takes_it_is_tried_on_the_schedule_and_given_up(kept: Kept) -> None:
    """Each attempt by another sender: due times are the database's, so restarts change nothing."""
    with Receiver(Answer(500)) as receiver:
        endpoint = kept.endpoint(receiver)
        kept.enqueue()
        kept.send()
        for number, pause_s in enumerate(SCHEDULE_S[1:], start=1):
            kept.clock.go_on(pause_s - 1)
            kept.send()
            assert len(receiver.received) == number
            kept.clock.go_on(1)
            kept.send()
            assert len(receiver.received) == number + 1
        kept.clock.go_on(10 * 86_400)
        kept.send()
    assert len(receiver.received) == len(SCHEDULE_S)
    (delivery,) = kept.deliveries(endpoint)
    assert (delivery.state, delivery.attempts, len(delivery.log)) == ("failed", 10, 10)
    assert {came.headers["webhook-id"] for came in receiver.received} == {delivery.event}
    assert len({came.body for came in receiver.received}) == 1


def test_what_a_killed_sender_had_leased_is_sent_by_another_when_the_lease_has_run_out(
    kept: Kept,
) -> None:
    with Receiver() as receiver:
        kept.endpoint(receiver)
        kept.enqueue()
        assert len(kept.webhooks.claim_due(lease_s=LEASE_S, room=Room())) == 1
        kept.send()
        assert receiver.received == []
        kept.clock.go_on(LEASE_S)
        kept.send()
        assert len(receiver.received) == 1


def test_a_sender_that_is_stopped_gives_back_what_it_has_under_way(kept: Kept) -> None:
    async def stop_halfway(receiver: Receiver) -> None:
        task = asyncio.create_task(kept.sender().run(60))
        await asyncio.to_thread(receiver.wait_for, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with Receiver(Answer(after_s=1.0), Answer()) as receiver:
        endpoint = kept.endpoint(receiver)
        kept.enqueue()
        asyncio.run(stop_halfway(receiver))
        kept.send()
        assert [came.headers["webhook-id"] for came in receiver.received] == [
            kept.deliveries(endpoint)[0].event
        ] * 2
    assert kept.deliveries(endpoint)[0].attempts == 1


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_a_receiver_says_when_to_come_again(kept: Kept, as_date: bool) -> None:
    moment = datetime.fromtimestamp(time.time() + 600, UTC)
    header = format_datetime(moment, usegmt=True) if as_date else "600"
    with Receiver(Answer(503, {"Retry-After": header}), Answer()) as receiver:
        kept.endpoint(receiver)
        kept.enqueue()
        kept.send()
        kept.clock.go_on(590)
        kept.send()
        assert len(receiver.received) == 1
        kept.clock.go_on(10)
        kept.send()
        assert len(receiver.received) == 2


def test_gone_ends_it_and_nothing_more_is_sent_there(kept: Kept) -> None:
    with Receiver(Answer(410)) as receiver:
        endpoint = kept.endpoint(receiver)
        kept.enqueue()
        kept.send()
        kept.enqueue()
        kept.clock.go_on(86_400)
        kept.send()
        assert len(receiver.received) == 1
    found = kept.webhooks.endpoint(endpoint.id)
    assert "410" in str(found.disabled_reason)
    assert [each.state for each in kept.deliveries(endpoint)] == ["failed"]


def test_a_slow_receiver_is_an_attempt_that_failed(kept: Kept) -> None:
    with Receiver(Answer(after_s=4.0)) as receiver:
        endpoint = kept.endpoint(receiver)
        kept.enqueue()
        kept.send()
    (delivery,) = kept.deliveries(endpoint)
    assert delivery.state == "pending"
    assert delivery.log[0].error == "no answer within 2 seconds"
    assert delivery.log[0].duration_ms >= 2000


def test_a_slow_receiver_does_not_hold_up_the_others(kept: Kept) -> None:
    async def until(is_so: Callable[[], Awaitable[bool]]) -> float:
        begun_s, task = time.monotonic(), asyncio.create_task(kept.sender().run(0.05))
        while not await is_so():
            await asyncio.sleep(0.02)
        took_s = time.monotonic() - begun_s
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return took_s

    with Receiver(Answer(after_s=1.5)) as slow, Receiver() as quick:
        kept.endpoint(slow)
        kept.endpoint(quick)
        kept.enqueue(30)

        async def quick_has_all() -> bool:
            return len(quick.received) == 30

        took_s = asyncio.run(until(quick_has_all))
        assert len(slow.received) <= 2 * (1 + took_s / 1.5)


def test_several_senders_send_each_delivery_once(kept: Kept) -> None:
    async def all_at_once() -> None:
        senders = [kept.sender() for _ in range(3)]
        for _ in range(60):
            await asyncio.gather(*(sender.round() for sender in senders))
            await asyncio.gather(*(sender.settle() for sender in senders))

    with Receiver() as receiver:
        kept.endpoint(receiver)
        kept.enqueue(40)
        asyncio.run(all_at_once())
        ids = [came.headers["webhook-id"] for came in receiver.received]
    assert len(ids) == len(set(ids)) == 40


def test_a_receiver_that_is_allowed_no_more_is_called_no_more(kept: Kept) -> None:
    """The URL is looked at before each request, not only when it is registered."""
    with Receiver() as receiver:
        endpoint = kept.endpoint(receiver)
        kept.enqueue()
        kept.poster.close()
        kept.poster = HttpPoster(CallbackRules())
        kept.send()
        assert receiver.received == []
    assert "not public" in str(kept.deliveries(endpoint)[0].log[0].error)


def test_a_database_that_is_away_stops_the_sender_for_a_round_only(kept: Kept) -> None:
    class Away(SqlWebhooks):
        rounds = 0

        def claim_due(self, *, lease_s: float, room: Room) -> list[Due]:
            self.rounds += 1
            if self.rounds == 1:
                raise Unavailable(part="database")
            return super().claim_due(lease_s=lease_s, room=room)

    async def go(receiver: Receiver) -> None:
        away = Away(kept.database, clock=kept.clock)
        task = asyncio.create_task(Sender(away, kept.poster).run(0.05))
        await asyncio.to_thread(receiver.wait_for, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with Receiver() as receiver:
        kept.endpoint(receiver)
        kept.enqueue()
        asyncio.run(go(receiver))


def test_a_sender_with_a_bug_gives_a_delivery_up_on_the_schedule(kept: Kept) -> None:
    class Buggy(HttpPoster):
        async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
            raise RuntimeError

    kept.poster.close()
    kept.poster = Buggy(RULES)
    with Receiver() as receiver:
        endpoint = kept.endpoint(receiver)
        kept.enqueue()
        for pause_s in SCHEDULE_S:
            kept.clock.go_on(pause_s)
            kept.send()
    (delivery,) = kept.deliveries(endpoint)
    assert (delivery.state, delivery.attempts, len(delivery.log)) == ("failed", 10, 10)
    assert delivery.log[0].error == OWN_FAULT


def test_a_slow_name_server_holds_up_its_own_tenant_alone(kept: Kept) -> None:
    """A lookup that goes on behind its timeout still counts as its tenant's."""
    until = threading.Event()

    def resolve(host: str, _: int) -> list[str]:
        if host == "slow.example":
            until.wait(30)
        return ["127.0.0.1"]

    kept.poster.close()
    kept.poster = HttpPoster(RULES, timeout_s=0.2, resolve=resolve)

    async def go(quick: Receiver) -> None:
        sender = kept.sender(of_tenant=8, of_endpoint=8)
        for _ in range(6):
            await sender.round()
            await asyncio.sleep(0.3)
        noted = [each for each in kept.deliveries(slow) if each.log]
        assert len(noted) == 8  # when their time was over
        kept.enqueue(tenant="other")
        await sender.round()
        await asyncio.to_thread(quick.wait_for, 1)
        until.set()
        await sender.settle()

    with Receiver() as quick:
        slow = register(
            f"http://slow.example:{quick.port}/", ["job.failed"], "", rules=RULES,
            webhooks=kept.webhooks,
        )  # fmt: skip
        url = f"http://quick.example:{quick.port}/"
        register(url, ["job.failed"], "", rules=RULES, webhooks=kept.webhooks.of("other"))
        kept.enqueue(60)
        asyncio.run(go(quick))
        assert len(quick.received) == 1


def test_a_tampered_body_does_not_verify(kept: Kept) -> None:
    with Receiver() as receiver:
        endpoint = kept.endpoint(receiver)
        kept.enqueue()
        kept.send()
    (came,) = receiver.received
    secret = endpoint.secrets[0].text
    tampered = type(came)(came.path, came.headers, came.body.replace(b"0", b"1"))
    for wrong, key in ((tampered, secret), (came, new_secret())):
        with pytest.raises(Exception, match="No matching signature"):
            wrong.verified(key)
