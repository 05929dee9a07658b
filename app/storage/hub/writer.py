"""`HubWriter` on `huggingface_hub`: discussions, comments and pull requests, by the service's token
(`HF_TOKEN`, at `HF_ENDPOINT`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.community import DiscussionComment
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars

from app.domain.errors import AdapterSafetyError, Unavailable
from app.domain.hub_errors import RepositoryGated, RepositoryNotFound
from app.domain.verdict_errors import HubWriteRefused, PushedMeanwhile
from app.jobs.verdict_ports import Posted

FIELD = "repo"
LOOKED_AT = 200  # discussions, newest first: ours was opened a moment ago
MAX_REASON_CHARS = 200
TOO_MANY, SERVER_ERROR = 429, 500
MOVED = (409, 412)  # of a commit: its parent is no longer the branch's head


@dataclass(frozen=True)
class HfWriter:
    endpoint: str | None = None  # HF_ENDPOINT, if None
    token: str | bool | None = None  # HF_TOKEN or the login's, if None

    @property
    def _api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, token=self.token)

    def find(self, repo: str, title: str, marker: str) -> Posted | None:
        """Raises as the port says, like every method here."""
        with _explained("looking for a discussion", repo):
            every = islice(self._api.get_repo_discussions(repo), LOOKED_AT)
            for number in [each.num for each in every if each.title == title]:
                if self._holds(repo, number, marker):
                    return self._posted(repo, number)
        return None

    def has_comment(self, repo: str, number: int, marker: str) -> bool:
        with _explained("reading a discussion", repo):
            return self._holds(repo, number, marker)

    def discussion(self, repo: str, title: str, text: str) -> Posted:
        with _explained("opening a discussion", repo):
            made = self._api.create_discussion(repo, title, description=text)
        return self._posted(repo, made.num)

    def comment(self, repo: str, number: int, text: str) -> Posted:
        with _explained("commenting", repo):
            self._api.comment_discussion(repo, number, text)
        return self._posted(repo, number)

    def pull_request(
        self, repo: str, parent: str, files: Mapping[str, Path], title: str, text: str
    ) -> Posted | None:
        """Nothing is opened where no file would change."""
        disable_progress_bars()  # because a service's log is no terminal
        added = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        with _explained("opening a pull request", repo, parent):
            made = self._api.create_commit(
                repo,
                added,
                commit_message=title,
                commit_description=text,
                create_pr=True,
                parent_commit=parent,
            )
        return None if made.pr_num is None else self._posted(repo, made.pr_num)

    def _holds(self, repo: str, number: int, marker: str) -> bool:
        events = self._api.get_discussion_details(repo, number).events
        texts = [event.content for event in events if isinstance(event, DiscussionComment)]
        return any(marker in text for text in texts)

    def _posted(self, repo: str, number: int) -> Posted:
        return Posted(number, f"{self._api.endpoint}/{repo}/discussions/{number}")


@contextmanager
def _explained(what: str, repo: str, parent: str | None = None) -> Iterator[None]:
    """The library's errors as ours; an upload's come wrapped in a RuntimeError."""
    try:
        yield
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _told(_cause(error), what, repo, parent) from error


def _cause(error: BaseException) -> BaseException:
    """The first of the library's HTTP errors that this one comes from; itself, if none."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, HfHubHTTPError | httpx2.HTTPError):
            return found
        found = found.__cause__
    return error


def _told(error: BaseException, what: str, repo: str, parent: str | None) -> AdapterSafetyError:
    if isinstance(error, GatedRepoError):
        return RepositoryGated(field=FIELD, repository=repo)
    if isinstance(error, RepositoryNotFoundError):
        return RepositoryNotFound(field=FIELD, repository=repo)
    if isinstance(error, HfHubHTTPError):
        return _of_status(error, what, repo, parent)
    if isinstance(error, ValueError):  # the library's own checks: of names, of a card's metadata
        return HubWriteRefused(what=what, repository=repo, reason=_bounded(str(error)))
    return Unavailable(part="hub")


def _of_status(
    error: HfHubHTTPError, what: str, repo: str, parent: str | None
) -> AdapterSafetyError:
    status = error.response.status_code
    if status == TOO_MANY or status >= SERVER_ERROR:
        return Unavailable(part="hub")
    if status in MOVED and parent is not None:
        return PushedMeanwhile(repository=repo, revision=parent)
    said = error.response.headers.get("X-Error-Message") or error.server_message or ""
    reason = f"the hub answers {status} {_bounded(said)}".rstrip()
    return HubWriteRefused(what=what, repository=repo, reason=reason)


def _bounded(text: str) -> str:
    """One line of printable characters."""
    line = " ".join(text.split())
    return "".join(c for c in line if c.isprintable())[:MAX_REASON_CHARS]
