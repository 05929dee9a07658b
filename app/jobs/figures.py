"""How much there is of what, over all tenants: for whoever runs the service, never for a client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from app.domain.job import JobKind, JobStatus
from app.domain.webhook import DeliveryState


@dataclass(frozen=True)
class Figures:
    """At one moment. What there is none of is not in the mappings."""

    jobs: Mapping[tuple[JobKind, JobStatus], int]
    oldest_queued_s: float  # since it was submitted; 0 where none waits
    deliveries: Mapping[DeliveryState, int]


class Counting(Protocol):
    """The database, counted."""

    def figures(self) -> Figures:
        """Raises Unavailable."""
