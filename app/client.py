"""A client of the HTTP API: what `adapter-safety patch --server` and the demo use."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE
from app.domain.dataset import Responses

PARTS = {"config": CONFIG_FILE, "weights": WEIGHTS_FILE, "readme": README_FILE}
FINAL = {"succeeded", "failed", "cancelled"}
TIMEOUT = httpx.Timeout(30.0, read=60.0)  # seconds; a quiet event stream has a comment each 15
RECONNECTS = 18  # with the pauses below, about two minutes
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0


class ProblemError(Exception):
    """The service answered with a problem (RFC 9457)."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or "the request failed")
        self.problem = problem

    @property
    def status(self) -> int:
        return int(self.problem.get("status", 0))


@dataclass(frozen=True)
class Event:
    id: str
    name: str
    data: Mapping[str, Any]


class Client:
    """Synchronous. Raises ProblemError for a problem, httpx.TransportError when nobody answers."""

    def __init__(
        self, base_url: str, timeout: httpx.Timeout = TIMEOUT, api_key: str | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=base_url, timeout=timeout, headers=headers)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def upload(self, adapter: Path) -> dict[str, Any]:
        """Upload a folder or an archive, streamed from disk."""
        with ExitStack() as opened:
            files = {
                part: (path.name, opened.enter_context(path.open("rb")))
                for part, path in _parts(adapter).items()
            }
            return _json(self._http.post("/v1/adapters", files=files))

    def upload_dataset(self, data: Path, *, responses: Responses = "required") -> dict[str, Any]:
        """Upload JSON lines, streamed from disk; with `optional` responses prompts alone too."""
        with data.open("rb") as file:
            files, query = {"data": (data.name, file)}, {"responses": responses}
            return _json(self._http.post("/v1/datasets", files=files, params=query))

    def submit(
        self, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return _json(self._http.post("/v1/jobs", json=body, headers=headers))

    def job(self, job_id: str) -> dict[str, Any]:
        return _json(self._http.get(f"/v1/jobs/{job_id}"))

    def cancel(self, job_id: str) -> dict[str, Any]:
        return _json(self._http.delete(f"/v1/jobs/{job_id}"))

    def report(self, job_id: str) -> dict[str, Any]:
        return _json(self._http.get(f"/v1/jobs/{job_id}/report", params={"format": "json"}))

    def events(self, job_id: str) -> Iterator[Event]:
        """Follow a job to its final event; a dropped connection resumes where it broke.

        Between attempts it waits, 0.5 s doubling to 8 s, and gives up after about two minutes
        without news. Where the stream ends early, the job's own record has the last word.
        """
        last, failures = "", 0
        while True:
            try:
                for event in self._stream(job_id, last):
                    last, failures = event.id, 0
                    yield event
                    if event.name in FINAL:
                        return
                job = self.job(job_id)
                if job["status"] in FINAL:
                    yield Event(last, job["status"], {"status": job["status"]})
                    return
            except httpx.TransportError:
                if failures >= RECONNECTS:
                    raise
            time.sleep(min(FIRST_PAUSE_S * 2**failures, LONGEST_PAUSE_S))
            failures += 1

    def download(self, job_id: str, target: Path) -> None:
        """Write the patched adapter's zip to `target`."""
        self._download(f"/v1/jobs/{job_id}/adapter", target)

    def download_transcripts(self, job_id: str, target: Path) -> None:
        """Write an evaluation's prompts and answers, JSON lines, to `target`; the key needs the
        scope `transcripts`."""
        self._download(f"/v1/jobs/{job_id}/transcripts", target)

    def download_part(self, path: str, target: Path) -> None:
        """Write a safety module or a kit to `target`; `path` is the link that its job has."""
        self._download(f"{path}/file", target)

    def _download(self, path: str, target: Path) -> None:
        with self._http.stream("GET", path) as response:
            _check(response)
            with target.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)

    def _stream(self, job_id: str, last: str) -> Iterator[Event]:
        headers = {"Last-Event-ID": last} if last else {}
        with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
            _check(response)
            yield from parse_events(response.iter_lines())


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events from lines (WHATWG HTML, section 9.2.6); comments are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                yield Event(
                    fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"])
                )
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")


def _parts(adapter: Path) -> dict[str, Path]:
    if not adapter.is_dir():
        return {"archive": adapter}
    return {part: adapter / name for part, name in PARTS.items() if (adapter / name).is_file()}


def _json(response: httpx.Response) -> dict[str, Any]:
    _check(response)
    body: dict[str, Any] = response.json()
    return body


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        problem = response.json()
    except ValueError:
        problem = {"title": f"HTTP {response.status_code}"}
    raise ProblemError({"status": response.status_code, **problem})
