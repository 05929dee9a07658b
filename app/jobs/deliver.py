"""Send what is due. Due times are kept in the database, so nothing is lost with this process."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from app.domain.errors import Unavailable
from app.domain.retry import next_step
from app.domain.room import Room
from app.domain.signing import signed_headers
from app.domain.webhook import Attempt, Due, Outcome
from app.jobs.webhook_ports import Poster, Webhooks

logger = logging.getLogger(__name__)

LEASE_S = 60.0  # longer than a request may take, with what comes before and after it
JSON_HEADERS = {"Content-Type": "application/json"}
OWN_FAULT = "it could not be sent, for a fault of the service's own"
_RANDOM = random.SystemRandom()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Sender:
    """Several deliveries at once, each in a task of its own; several senders do no harm."""

    def __init__(
        self,
        webhooks: Webhooks,
        poster: Poster,
        *,
        room: Room | None = None,
        now: Callable[[], datetime] = _utc_now,
        jitter: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self._webhooks = webhooks
        self._poster = poster
        self._room = room or Room()
        self._now = now
        self._jitter = jitter
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_room = asyncio.Event()

    async def run(self, every_s: float) -> None:
        """For ever: what is due is looked for every `every_s`, and at once when something ended."""
        try:
            while True:
                self._has_room.clear()
                await self._try_round()
                await self._pause(every_s)
        finally:
            await self.stop()

    async def round(self) -> int:
        """Start what is due and there is room for; how many. Raises Unavailable."""
        if self._room.free <= 0:
            return 0
        claimed = await asyncio.to_thread(
            self._webhooks.claim_due, lease_s=LEASE_S, room=self._room
        )
        for due in claimed:
            self._room.take(due.tenant, due.endpoint.id)
            task = asyncio.create_task(self._deliver(due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(claimed)

    async def settle(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def stop(self) -> None:
        """Break off what is under way; it is given back, and sent again by whoever comes next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _try_round(self) -> None:
        try:
            await self.round()
        except Unavailable as error:
            logger.warning("webhooks are not sent: %s", error)
        except Exception:  # whatever it was, the next round may find it mended
            logger.exception("a round of webhooks failed")

    async def _pause(self, every_s: float) -> None:
        try:
            async with asyncio.timeout(every_s):
                await self._has_room.wait()
        except TimeoutError:
            return

    async def _deliver(self, due: Due) -> None:
        try:
            await self._try_attempt(due)
            await self._poster.settled(due.endpoint.url)  # so that it holds up nobody else's
        finally:
            self._room.give_back(due.tenant, due.endpoint.id)
            self._has_room.set()

    async def _try_attempt(self, due: Due) -> None:
        try:
            await self._attempt(due)
        except asyncio.CancelledError:
            await asyncio.to_thread(self._give_back, due)
            raise
        except Unavailable as error:  # its lease runs out, and then it is sent again
            logger.warning("delivery %s is not noted: %s", due.id, error)
        except Exception:  # the edge of the task: others go on
            logger.exception("delivery %s is not noted", due.id)

    async def _attempt(self, due: Due) -> None:
        at, begun_s = self._now(), time.monotonic()
        outcome = await self._outcome(due, at)
        attempt = _logged(outcome, at, time.monotonic() - begun_s)
        step = next_step(outcome, due.tried, self._now(), self._jitter())
        if not await asyncio.to_thread(self._webhooks.note_attempt, due, attempt, step):
            logger.warning("delivery %s was another's by the time it was answered", due.id)

    async def _outcome(self, due: Due, at: datetime) -> Outcome:
        try:
            headers = signed_headers(due.event, due.body, due.endpoint.signing(at), at)
            return await self._poster.post(
                due.endpoint.url, {**JSON_HEADERS, **headers}, due.body.encode()
            )
        except Exception:  # a bug counts as an attempt, or it would be met again without an end
            logger.exception("delivery %s failed", due.id)
            return Outcome(error=OWN_FAULT)

    def _give_back(self, due: Due) -> None:
        try:
            self._webhooks.release(due)
        except Unavailable:
            logger.warning("delivery %s stays leased until its lease runs out", due.id)


def _logged(outcome: Outcome, at: datetime, took_s: float) -> Attempt:
    duration_ms = round(took_s * 1000)
    return Attempt(at, duration_ms, outcome.status, outcome.error, outcome.response)
