"""A job that this worker has claimed: its lease, and the one way in which it ends."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from app.domain.errors import (
    AdapterSafetyError,
    JobCancelled,
    LeaseLost,
    TooManyAttempts,
    Unavailable,
    WorkerStopping,
)
from app.domain.job import Fault, FinalStatus, Job, JobResult, JobStatus
from app.jobs.lease import Lease, about, never, nothing
from app.jobs.ports import Events, Records
from app.observe.traces import Span, span
from app.observe.watch import Outcome, watching

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ATTEMPTS = 3  # because a job that killed its worker three times will do so again
MOVE_AGAIN_AFTER_S = 0.5


class Held:
    """Ends once, by its own: nothing here raises into the other jobs of a batch."""

    def __init__(
        self,
        job: Job,
        *,
        records: Records,
        events: Events,
        lease_s: float,
        is_stopping: Callable[[], bool] = never,
        on_beat: Callable[[], None] = nothing,
        together_with: str | None = None,  # the traceparent of a batch's first job
    ) -> None:
        self.job = job
        self.lease = Lease(
            job,
            records=records,
            events=events,
            lease_s=lease_s,
            is_stopping=is_stopping,
            on_beat=on_beat,
        )
        self._link, self._open, self._since = together_with, ExitStack(), time.monotonic()
        self._span: Span | None = None
        self.is_open = True
        self.is_for_others = False  # given back though nothing is wrong, so to be sent at once
        self.status: JobStatus | None = None  # what it ended as, where that was ours to say
        self._records, self._events, self._lease_s = records, events, lease_s

    def __enter__(self) -> "Held":
        job = self.job
        traced = span(
            f"job {job.kind}",
            kind="consumer",
            parent=job.traceparent,
            link=self._link,
            job_id=job.id,
            attempt=job.attempts,
        )
        self._span = self._open.enter_context(traced)
        self._open.enter_context(self.lease)
        with about(job):
            logger.info("the job begins")
        started = {"status": "running", "attempt": self.job.attempts}
        self._events.publish(self.job.id, "running", started)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def attempt(self, step: Callable[[], T]) -> T | None:
        """The step's value; None where it raised a known error, which has ended this job."""
        try:
            with about(self.job):
                return step()
        except AdapterSafetyError as error:
            self.stop(error)
            return None

    def check(self) -> bool:
        """True; raises TooManyAttempts, JobCancelled, LeaseLost where there is nothing to do."""
        if self.job.attempts > MAX_ATTEMPTS:
            raise TooManyAttempts(attempts=MAX_ATTEMPTS)
        self.lease.check()
        return True

    def tell(self, name: str, data: Mapping[str, object]) -> None:
        """An event of this job."""
        self._events.publish(self.job.id, name, data)

    def succeed(self, result: JobResult) -> None:
        self._close(lambda: self._finish("succeeded", result=result))

    def stop(self, error: AdapterSafetyError) -> None:
        """End as the error says: cancelled, failed, back in the queue, or left to its new owner.
        The first to say so is right."""
        if self.is_open:
            with about(self.job):
                self._stop(error)

    def _stop(self, error: AdapterSafetyError) -> None:
        if isinstance(error, JobCancelled):
            self._close(lambda: self._finish("cancelled"))
        elif isinstance(error, LeaseLost):
            logger.warning("job %s was taken over by another worker", self.job.id)
            self.is_open = False
            self._tell_end("lost")
        elif isinstance(error, Unavailable):
            logger.warning("job %s goes back to the queue: %s", self.job.id, error)
            self.give_back()
        elif isinstance(error, WorkerStopping):
            self.is_for_others = True
            self.give_back()
        else:
            self._close(lambda: self._finish("failed", fault=Fault.of(error)))

    def give_back(self) -> None:
        """Queued again, the attempt not counted."""
        self._close(self._release)

    def _release(self) -> None:
        self._records.release(self.job.id, fence=self.job.fence)
        self._tell_end("released")

    def _close(self, move: Callable[[], None]) -> None:
        """Tried for as long as a lease lasts, because hours of work may hang on it; where the
        database stays away the job is as it was until its lease lapses."""
        self.is_open = False
        until = time.monotonic() + self._lease_s
        while not self._moved(move) and time.monotonic() < until:
            time.sleep(MOVE_AGAIN_AFTER_S)

    def _moved(self, move: Callable[[], None]) -> bool:
        """Whether there is nothing more to try."""
        try:
            move()
        except LeaseLost:
            logger.warning("job %s was finished by another worker", self.job.id)
            self._tell_end("lost")
        except Unavailable as error:
            logger.warning("the end of job %s is not recorded: %s", self.job.id, error)
            return False
        return True

    def _finish(
        self,
        status: FinalStatus,
        *,
        result: JobResult | None = None,
        fault: Fault | None = None,
    ) -> None:
        """The record first: an event only tells what the database already holds."""
        job = self.job
        self._records.finish(job.id, fence=job.fence, status=status, result=result, fault=fault)
        self.status = status
        self._tell_end(status, fault.code if fault else None)
        problem = {"problem": {"code": fault.code, "detail": fault.detail}} if fault else {}
        self._events.publish(job.id, status, {"status": status, **problem})

    def _tell_end(self, outcome: Outcome, problem: str | None = None) -> None:
        """To whoever watches this worker."""
        seconds = time.monotonic() - self._since
        with about(self.job):
            said = f": {problem}" if problem else ""
            logger.info("the job is %s after %.3f s%s", outcome, seconds, said)
        watching().ended(self.job.kind, outcome, seconds, problem)
        if self._span is not None:
            self._span.note("outcome", outcome)
            if problem:
                self._span.fail(problem)
