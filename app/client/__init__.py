"""A client of the HTTP API: what the command line, the demo and pipelines in Python use.

    with Client("https://service.example", api_key=key) as client:
        adapter = client.upload(Path("adapter"))
        job = client.submit({"kind": "patch", "adapter": adapter["id"], ...})
        job = client.wait(job["id"])
        client.download(job["id"], Path("patched.zip"))

`AsyncClient` has the same methods to await. What is asked, how an answer is read and when to try
again is decided once, in plans that do no I/O (`plans`, `downloads`, `events`); the two clients
only carry them out.
"""

from app.client.answers import (
    Adapter,
    AdapterSummary,
    Alignment,
    Dataset,
    Hub,
    ImportedAdapter,
    Job,
    Module,
    Page,
    Progress,
)
from app.client.asynchronous import AsyncClient
from app.client.bodies import OnProgress
from app.client.events import FINAL, Event, parse_events
from app.client.patience import Patience
from app.client.problems import (
    ClientError,
    Conflict,
    DigestMismatch,
    Forbidden,
    NotFound,
    ProblemError,
    Refused,
    ServerFault,
    Throttled,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WaitTimeout,
)
from app.client.sync import Client

__all__ = [
    "FINAL",
    "Adapter",
    "AdapterSummary",
    "Alignment",
    "AsyncClient",
    "Client",
    "ClientError",
    "Conflict",
    "Dataset",
    "DigestMismatch",
    "Event",
    "Forbidden",
    "Hub",
    "ImportedAdapter",
    "Job",
    "Module",
    "NotFound",
    "OnProgress",
    "Page",
    "Patience",
    "ProblemError",
    "Progress",
    "Refused",
    "ServerFault",
    "Throttled",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "WaitTimeout",
    "parse_events",
]
