"""What is asked of the service, and what is done with the answer: plans that do no I/O.

A plan is a generator. It yields what is to be done (`Send`, `Pause`), is sent the answer or thrown
the failure, and returns its result; so one plan serves the blocking and the awaiting client.
"""

import time
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import httpx

from app.client.answers import Adapter, Dataset, ImportedAdapter, Job, Page
from app.client.bodies import OnProgress, parts_of
from app.client.events import FINAL
from app.client.patience import FOLLOW, Patience, may_pass
from app.client.problems import Throttled, WaitTimeout, problem_of

T = TypeVar("T")

FIRST_LOOK_S, LONGEST_LOOK_S = 0.1, 2.0  # between two looks at a job


@dataclass(frozen=True)
class Send:
    """One request. `repeatable`: done twice it is done once."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    on_progress: OnProgress | None = None
    repeatable: bool = True


@dataclass(frozen=True)
class Pause:
    seconds: float


Plan = Generator[Send | Pause, httpx.Response | None, T]


def call(request: Send, patience: Patience) -> Plan[httpx.Response]:
    """The answer, once it is a success. Raises ProblemError.

    429 and 503 are asked again as the service says; a failed connection is not, because what it
    has done is not known, and a service that is not there should be told of at once.
    """
    waiting = patience.afresh()
    while True:
        response = yield request
        assert response is not None  # noqa: S101 because a Send is answered with a response
        if response.is_success:
            return response
        error = problem_of(response)
        again = may_pass(error) and (request.repeatable or isinstance(error, Throttled))
        if not again:
            raise error
        yield Pause(waiting.pause_s(error))


def ask(request: Send, patience: Patience) -> Plan[Any]:
    return (yield from call(request, patience)).json()


def upload(adapter: Path, on_progress: OnProgress | None, patience: Patience) -> Plan[Adapter]:
    files = parts_of(adapter)
    request = Send("POST", "/v1/adapters", files=files, on_progress=on_progress)
    return cast(Adapter, (yield from ask(request, patience)))


def upload_from_hub(
    repo_id: str, revision: str | None, patience: Patience
) -> Plan[ImportedAdapter]:
    body = {"hub": {"repo_id": repo_id, "revision": revision}}
    return cast(
        ImportedAdapter, (yield from ask(Send("POST", "/v1/adapters", json=body), patience))
    )


def upload_dataset(
    data: Path, query: Mapping[str, str], on_progress: OnProgress | None, patience: Patience
) -> Plan[Dataset]:
    files = {"data": data}
    request = Send("POST", "/v1/datasets", query, files=files, on_progress=on_progress)
    return cast(Dataset, (yield from ask(request, patience)))


def submit(body: Mapping[str, Any], key: str | None, patience: Patience) -> Plan[Job]:
    """With a key of its own where none is given, so that asking again makes no second job."""
    headers = {"Idempotency-Key": key or uuid.uuid4().hex}
    request = Send("POST", "/v1/jobs", json=dict(body), headers=headers)
    return cast(Job, (yield from ask(request, patience)))


def job(job_id: str, patience: Patience) -> Plan[Job]:
    return cast(Job, (yield from ask(Send("GET", job_path(job_id)), patience)))


def cancel(job_id: str, patience: Patience) -> Plan[Job]:
    return cast(Job, (yield from ask(Send("DELETE", job_path(job_id)), patience)))


def report(job_id: str, form: str, query: Mapping[str, Any], patience: Patience) -> Plan[str]:
    request = Send("GET", f"{job_path(job_id)}/report", {**query, "format": form})
    return (yield from call(request, patience)).text


def wait(job_id: str, timeout_s: float | None, patience: Patience) -> Plan[Job]:
    """Looks at the record, ever less often. Raises WaitTimeout; a service that is away is waited
    for as an event stream would."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    away, pause = FOLLOW.afresh(), FIRST_LOOK_S
    while True:
        try:
            found = yield from job(job_id, patience)
        except httpx.TransportError as error:
            yield Pause(away.pause_s(error))
            continue
        away.renew()
        if found["status"] in FINAL:
            return found
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise WaitTimeout(found, timeout_s or 0)
        yield Pause(pause if left is None else min(pause, left))
        pause = min(pause * 1.5, LONGEST_LOOK_S)


def listing(path: str, query: Mapping[str, Any]) -> Send:
    """The first page of a listing; what is not asked for is left out."""
    return Send("GET", path, {name: value for name, value in query.items() if value is not None})


def next_page(request: Send, page: Page[Any]) -> Send | None:
    cursor = page["next_cursor"]
    return None if cursor is None else replace(request, params={**request.params, "cursor": cursor})


def job_path(job_id: str) -> str:
    """An id is one part of the path, whatever is in it."""
    return f"/v1/jobs/{quote(job_id, safe='')}"
