"""What the routes need, wired once in `app.main` and kept on the application."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from app.domain.access import Quotas
from app.domain.callback import CallbackRules
from app.jobs.hub_ports import HubReader
from app.jobs.ports import Artifacts, Events, Keys, Limiter, Models, Queue, Records
from app.jobs.retain import Collected, Retention, collect
from app.jobs.webhook_ports import Webhooks


@dataclass(frozen=True)
class OpenDoor:
    """Of a service that asks for no keys, because it listens on its own machine alone."""

    hosts: frozenset[str]  # names and addresses that requests may be addressed to; "*" is any
    origins: frozenset[str]  # sites whose pages may send requests


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
