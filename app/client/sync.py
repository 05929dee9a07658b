"""The blocking client."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import httpx

from app.client import plans
from app.client.answers import (
    Adapter,
    AdapterSummary,
    Alignment,
    Dataset,
    ImportedAdapter,
    Job,
)
from app.client.bodies import OnProgress, opened
from app.client.downloads import Download
from app.client.events import Event, Following
from app.client.patience import Patience
from app.client.plans import Pause, Plan, Send
from app.client.problems import ClientError, problem_of
from app.domain.dataset import Responses

T = TypeVar("T")

TIMEOUT = httpx.Timeout(30.0, read=60.0)  # seconds; a quiet event stream has a comment each 15


class Client:
    """Raises ProblemError for a problem, httpx.TransportError when nobody answers."""

    def __init__(
        self,
        base_url: str,
        timeout: httpx.Timeout = TIMEOUT,
        api_key: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=base_url, timeout=timeout, headers=headers)
        self._patience = patience or Patience()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # ------------------------------------------------------------------------------- what is sent
    def upload(self, adapter: Path, *, on_progress: OnProgress | None = None) -> Adapter:
        """A folder or an archive, streamed from disk."""
        return self._run(plans.upload(adapter, on_progress, self._patience))

    def upload_from_hub(self, repo_id: str, revision: str | None = None) -> ImportedAdapter:
        """Have the service take an adapter from the hub."""
        return self._run(plans.upload_from_hub(repo_id, revision, self._patience))

    def upload_dataset(
        self,
        data: Path,
        *,
        responses: Responses = "required",
        on_progress: OnProgress | None = None,
    ) -> Dataset:
        """JSON lines, streamed from disk; with `optional` responses prompts alone too."""
        query = {"responses": responses}
        return self._run(plans.upload_dataset(data, query, on_progress, self._patience))

    def submit(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        return self._run(plans.submit(body, idempotency_key, self._patience))

    def cancel(self, job_id: str) -> Job:
        """Asks; a running job ends at its next module."""
        return self._run(plans.cancel(job_id, self._patience))

    # ------------------------------------------------------------------------------- what is there
    def job(self, job_id: str) -> Job:
        return self._run(plans.job(job_id, self._patience))

    def jobs(
        self, *, status: str | None = None, kind: str | None = None, limit: int = 50
    ) -> Iterator[Job]:
        """Newest first, page after page of `limit`."""
        return self._listed("/v1/jobs", status=status, kind=kind, limit=limit)

    def adapters(self, *, limit: int = 50) -> Iterator[AdapterSummary]:
        return self._listed("/v1/adapters", limit=limit)

    def datasets(self, *, limit: int = 50) -> Iterator[Dataset]:
        return self._listed("/v1/datasets", limit=limit)

    def alignments(self, *, limit: int = 50) -> Iterator[Alignment]:
        return self._listed("/v1/alignments", limit=limit)

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """The job once it has ended, however it ended. Raises WaitTimeout."""
        return self._run(plans.wait(job_id, timeout_s, self._patience))

    def events(self, job_id: str, *, after: str = "") -> Iterator[Event]:
        """Follow a job to its final event, from after the id `after`; a dropped connection goes on
        where it broke. Gives up after about two minutes without news. Where the stream ends early,
        the job's own record has the last word.
        """
        following = Following(job_id, after)
        while not following.done:
            try:
                for event in self._stream(following):
                    yield event
                    if following.done:
                        return
                last = following.settled(self.job(job_id))
                if last:
                    yield last
                    return
                raise httpx.ReadError("the stream ended before the job")
            except (httpx.TransportError, ClientError) as error:
                time.sleep(following.pause_s(error))

    # ---------------------------------------------------------------------------- what has come out
    def report(self, job_id: str) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self.report_as(job_id, "json")))

    def report_as(self, job_id: str, form: str, **other: Any) -> str:
        """In one of the forms `json`, `csv`, `markdown`, `html`, `sarif`; with `threshold=0.4` (or
        count, fraction, all) decided anew from the stored cosines."""
        return self._run(plans.report(job_id, form, other, self._patience))

    def download(self, job_id: str, target: Path, *, on_progress: OnProgress | None = None) -> None:
        """The patched adapter's zip. Raises DigestMismatch."""
        self._fetch(f"{plans.job_path(job_id)}/adapter", target, on_progress)

    def download_transcripts(self, job_id: str, target: Path) -> None:
        """An evaluation's prompts and answers, JSON lines; the key needs the scope
        `transcripts`."""
        self._fetch(f"{plans.job_path(job_id)}/transcripts", target)

    def download_part(self, path: str, target: Path) -> None:
        """A safety module or a kit; `path` is the link that its job has."""
        self._fetch(f"{path}/file", target)

    # ------------------------------------------------------------------------------ carrying it out
    def _run(self, plan: Plan[T]) -> T:
        answer: httpx.Response | None = None
        failure: httpx.TransportError | None = None
        while True:
            try:
                step = plan.throw(failure) if failure else plan.send(answer)
            except StopIteration as ended:
                return cast(T, ended.value)
            answer = failure = None
            try:
                answer = self._done(step)
            except httpx.TransportError as error:
                failure = error

    def _done(self, step: Send | Pause) -> httpx.Response | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        with ExitStack() as stack:
            files = stack.enter_context(opened(step.files, step.on_progress))
            return self._http.request(
                step.method,
                step.path,
                params=dict(step.params),
                json=step.json,
                headers=dict(step.headers),
                files=files or None,
            )

    def _listed(self, path: str, **query: Any) -> Iterator[Any]:
        request: Send | None = plans.listing(path, query)
        while request:
            page = self._run(plans.ask(request, self._patience))
            yield from page["items"]
            request = plans.next_page(request, page)

    def _stream(self, following: Following) -> Iterator[Event]:
        path = f"{plans.job_path(following.job_id)}/events"
        with self._opened(path, following.headers) as response:
            if not response.is_success:
                raise problem_of(response)
            following.opened()
            for line in response.iter_lines():
                event = following.line(line)
                if event:
                    yield event

    def _fetch(self, path: str, target: Path, on_progress: OnProgress | None = None) -> None:
        with Download(path, target, self._patience, on_progress) as download:
            while not download.done:
                try:
                    self._fetch_on(download)
                except (httpx.TransportError, ClientError) as error:
                    time.sleep(download.pause_s(error))

    def _fetch_on(self, download: Download) -> None:
        with self._opened(download.path, download.headers) as response:
            if download.begin(response):
                for chunk in response.iter_raw():
                    download.feed(chunk)
                download.finish()

    @contextmanager
    def _opened(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """A stream; of what is no success the body is read."""
        with self._http.stream("GET", path, headers=dict(headers)) as response:
            if not response.is_success:
                response.read()
            yield response
