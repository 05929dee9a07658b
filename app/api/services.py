"""What the routes need, wired once in `app.main` and kept on the application."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from app.api.policy_file import PolicyFile
from app.domain.access import DEFAULT_TENANT, Quotas
from app.domain.callback import CallbackRules
from app.domain.hub_errors import ImportsBusy
from app.jobs.figures import Counting
from app.jobs.hub_ports import HubReader
from app.jobs.ports import Artifacts, Events, Keys, Limiter, Models, Queue, Records
from app.jobs.retain import Collected, Retention, collect
from app.jobs.verdict_ports import Verdicts
from app.jobs.webhook_ports import Webhooks


@dataclass(frozen=True)
class OpenDoor:
    """Of a service that asks for no keys, because it listens on its own machine alone."""

    hosts: frozenset[str]  # names and addresses that requests may be addressed to; "*" is any
    origins: frozenset[str]  # sites whose pages may send requests


@dataclass(frozen=True)
class Hook:
    """Of a service that a hub may call."""

    secrets: tuple[str, ...] = field(repr=False)  # any of them will do, so that one can be changed


IMPORTS_AT_ONCE = 4  # because each has a thread of those that all routes share, for minutes
IMPORTS_OF_TENANT = 2
IMPORT_RETRY_S = 30


@dataclass
class ImportRoom:
    """The imports from the hub that are under way, by tenant. Of one event loop."""

    under_way: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def taken(self, tenant: str) -> Iterator[None]:
        """Raises ImportsBusy."""
        own_are_many = self.under_way[tenant] >= IMPORTS_OF_TENANT
        if own_are_many or self.under_way.total() >= IMPORTS_AT_ONCE:
            limit = IMPORTS_OF_TENANT if own_are_many else IMPORTS_AT_ONCE
            raise ImportsBusy(limit=limit, retry_after_s=IMPORT_RETRY_S)
        self.under_way[tenant] += 1
        try:
            yield
        finally:
            self.under_way -= Counter([tenant])  # which forgets those that are at zero


@dataclass(frozen=True)
class Services:
    records: Records
    artifacts: Artifacts
    queue: Queue
    events: Events
    models: Models
    hub: HubReader | None  # of adapters that clients import; None where it is not wanted
    staging_dir: Path  # uploads lie here until they are accepted
    max_upload_bytes: int
    max_dataset_bytes: int
    max_wait_s: float
    keys: Keys
    limiter: Limiter
    quotas: Quotas  # of each tenant
    open_door: OpenDoor | None  # None where keys are needed
    webhooks: Webhooks
    callbacks: CallbackRules  # where webhooks may go
    verdicts: Verdicts
    figures: Counting
    metrics_token: str | None = field(default=None, repr=False)  # of those who scrape the figures
    hook: Hook | None = None  # None where no hub calls
    policy: PolicyFile | None = None
    tenant: str = DEFAULT_TENANT  # the caller's
    imports: ImportRoom = field(default_factory=ImportRoom)

    def collect(self, retention: Retention, *, dry_run: bool = False) -> Collected:
        """Take away what is over its time. Raises Unavailable."""
        return collect(
            retention,
            records=self.records,
            artifacts=self.artifacts,
            events=self.events,
            webhooks=self.webhooks,
            staging_dir=self.staging_dir,
            dry_run=dry_run,
        )


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
