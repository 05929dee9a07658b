"""What the routes need, wired once in `app.main` and kept on the application."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from app.jobs.ports import Artifacts, Events, Models, Queue, Records


@dataclass(frozen=True)
class Services:
    records: Records
    artifacts: Artifacts
    queue: Queue
    events: Events
    models: Models
    staging_dir: Path  # uploads lie here until they are accepted
    max_upload_bytes: int
    max_wait_s: float


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
