"""Where moderation takes its work from, and what it does it with."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.errors import Unavailable
from app.domain.policy import Policy
from app.domain.verdict import Verdict
from app.domain.verdict_errors import VerdictTaken
from app.jobs.hub_ports import HubReader
from app.jobs.import_adapter import Importer
from app.jobs.ports import Artifacts, Events, Models, Queue, Records
from app.jobs.verdict_ports import HubWriter, Verdicts

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3


@dataclass(frozen=True)
class Moderator:
    verdicts: Verdicts
    records: Records
    artifacts: Artifacts
    queue: Queue
    events: Events
    models: Models
    reader: HubReader
    writer: HubWriter
    policy: Callable[[], Policy | None]  # the one in force now
    staging_dir: Path
    max_upload_bytes: int
    lease_s: float
    stopping: threading.Event = field(default_factory=threading.Event)  # set: no further step

    def policy_in_force(self) -> Policy:
        """Raises Unavailable where there is none yet."""
        policy = self.policy()
        if policy is None:
            raise Unavailable(part="policy")
        return policy

    def records_of(self, verdict: Verdict) -> Records:
        return self.records.of(verdict.tenant)

    def importer(self, verdict: Verdict) -> Importer:
        return Importer(
            hub=self.reader,
            records=self.records_of(verdict),
            artifacts=self.artifacts,
            staging_dir=self.staging_dir,
            max_upload_bytes=self.max_upload_bytes,
        )

    @contextmanager
    def held(self, verdict: Verdict) -> Iterator[None]:
        """Keep the lease of a claimed verdict alive while its step goes on."""
        ended = threading.Event()
        renewal = threading.Thread(
            target=self._renew, args=(verdict, ended), name=f"verdict-{verdict.id}", daemon=True
        )
        renewal.start()
        try:
            yield
        finally:
            ended.set()
            renewal.join()

    def _renew(self, verdict: Verdict, ended: threading.Event) -> None:
        while not ended.wait(self.lease_s / RENEWALS_PER_LEASE):
            try:
                self.verdicts.renew(verdict, lease_s=self.lease_s)
            except Unavailable as error:  # the next round asks again
                logger.warning("verdict %s was not renewed: %s", verdict.id, error)
            except VerdictTaken:  # the step finds out when it keeps what it did
                return
