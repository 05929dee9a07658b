"""A hub as `huggingface_hub` reaches it (`HF_ENDPOINT`, `HF_TOKEN`, proxies, offline mode), with
its errors told as ours."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers

from app.domain.errors import AdapterSafetyError, InvalidField, Unavailable
from app.domain.hub_errors import (
    HubFileCorrupt,
    HubRefused,
    NotInCache,
    RepositoryGated,
    RepositoryNotFound,
    RevisionNotFound,
)

TIMEOUT = httpx2.Timeout(30.0, connect=10.0, pool=None)
MAIN = "main"
TOO_MANY, SERVER_ERROR = 429, 500


@dataclass(frozen=True)
class HubSession:
    """Where the hub is, and who asks."""

    endpoint: str | None = None  # HF_ENDPOINT, if None
    token: str | bool | None = None  # HF_TOKEN or the login's, if None; False: nobody's

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, token=self.token)

    @property
    def headers(self) -> dict[str, str]:
        """Of a request for a file's bytes: as they are, because ranges are of those."""
        return {**build_hf_headers(token=self.token), "accept-encoding": "identity"}


@dataclass(frozen=True)
class Asked:
    """What was asked for, as errors tell it."""

    field: str
    repository: str
    revision: str | None = None
    file: str = "the repository"

    @property
    def of(self) -> dict[str, str]:
        return {"repository": self.repository, "revision": self.revision or MAIN}


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids to ask the hub."""
    return constants.is_offline_mode()


@contextmanager
def explained(asked: Asked) -> Iterator[None]:
    """Raises RepositoryGated, RepositoryNotFound, RevisionNotFound, HubFileCorrupt, HubRefused,
    NotInCache, InvalidField and Unavailable in the place of the library's errors."""
    try:
        yield
    except KNOWN as error:
        raise _told(error, asked) from error


def _told(error: Exception, asked: Asked) -> AdapterSafetyError:
    for kind, tell in TOLD:
        if isinstance(error, kind):
            return tell(asked)
    if isinstance(error, HfHubHTTPError):
        return _of_status(error.response.status_code, asked)
    return Unavailable(part="hub")


def _of_status(status: int, asked: Asked) -> AdapterSafetyError:
    """The hub may answer better later, or it never will."""
    if status == TOO_MANY or status >= SERVER_ERROR:
        return Unavailable(part="hub")
    return HubRefused(status=status, **asked.of)


Tell = Callable[[Asked], AdapterSafetyError]
TOLD: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], Tell]] = (
    # first, because it is a RepositoryNotFoundError too
    (GatedRepoError, lambda asked: RepositoryGated(field=asked.field, repository=asked.repository)),
    (
        (RepositoryNotFoundError, DisabledRepoError),
        lambda asked: RepositoryNotFound(field=asked.field, repository=asked.repository),
    ),
    (RevisionNotFoundError, lambda asked: RevisionNotFound(field=asked.field, **asked.of)),
    (
        EntryNotFoundError,
        lambda asked: HubFileCorrupt(file=asked.file, reason="it is not there", **asked.of),
    ),
    (
        HFValidationError,
        lambda asked: InvalidField(field=asked.field, reason="is no repository's id"),
    ),
    (OfflineModeIsEnabled, lambda asked: NotInCache(field=asked.field, **asked.of)),
)
KNOWN = (
    HfHubHTTPError,
    HFValidationError,
    EntryNotFoundError,
    httpx2.HTTPError,
    ConnectionError,  # OfflineModeIsEnabled is one
    TimeoutError,
)
