"""A worker's hold on a running job: renewed in the background, asked between modules."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType

from app.domain.errors import (
    AdapterSafetyError,
    JobCancelled,
    LeaseLost,
    Unavailable,
    WorkerStopping,
)
from app.domain.job import Job
from app.jobs.ports import Events, Records
from app.observe.context import bound

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3


def never() -> bool:
    return False


def nothing() -> None: ...


def about(job: Job) -> AbstractContextManager[None]:
    """Log lines inside the block are about this job."""
    return bound(
        job_id=job.id,
        kind=job.kind,
        tenant=job.tenant,
        attempt=job.attempts,
        **({"request_id": job.request_id} if job.request_id else {}),
    )


class Lease:
    """Keeps a job's lease alive while a long module is computed, and carries its progress.

    The thread only renews. A cancel or a lost lease is raised by `check` and `progress`, in the
    working thread, so the work ends between two modules and never in the middle of one. A database
    that is away stops no work: should another have taken the job, the fence says so at the end.
    """

    def __init__(
        self,
        job: Job,
        *,
        records: Records,
        events: Events,
        lease_s: float,
        is_stopping: Callable[[], bool] = never,  # this worker
        on_beat: Callable[[], None] = nothing,  # this worker lives, whatever the database does
    ) -> None:
        self._is_stopping, self._on_beat = is_stopping, on_beat
        self._job, self._records, self._events, self._lease_s = job, records, events, lease_s
        self._done = self._total = 0
        self._lost: AdapterSafetyError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{job.id}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def progress(
        self, done: int, total: int, event: Mapping[str, object], name: str = "module"
    ) -> None:
        """Note that a module (or a batch, a step, or rows) is done. Raises what `check` raises."""
        self._done, self._total = done, total
        module = {"module": event["module"]} if "module" in event else {}
        with about(self._job), bound(**module):
            logger.debug("%s %d of %d", name, done, total)
        self._events.publish(self._job.id, name, {"done": done, "total": total, **event})
        self.check()

    def check(self) -> None:
        """Raises JobCancelled when a cancel was asked for, LeaseLost when the job is another's,
        WorkerStopping when there is work left and no time for it."""
        if self._lost:
            raise self._lost
        if self._beat_if_possible():
            raise JobCancelled
        is_through = 0 < self._total == self._done
        if self._is_stopping() and not is_through:
            raise WorkerStopping

    def _renew(self) -> None:
        with about(self._job):  # a thread begins with nothing bound
            while not self._ended.wait(self._lease_s / RENEWALS_PER_LEASE):
                try:
                    self._beat_if_possible()
                except LeaseLost as error:
                    self._lost = error
                    return

    def _beat_if_possible(self) -> bool:
        """Whether a cancel was asked for. Raises LeaseLost."""
        self._on_beat()
        try:
            return self._beat()
        except Unavailable as error:  # the next round asks again
            logger.warning("a heartbeat of job %s was lost: %s", self._job.id, error)
            return False

    def _beat(self) -> bool:
        return self._records.heartbeat(
            self._job.id,
            fence=self._job.fence,
            lease_s=self._lease_s,
            modules_done=self._done,
            modules_total=self._total,
        )
