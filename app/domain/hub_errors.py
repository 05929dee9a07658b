"""What can go wrong with a hub's repositories; the tree is drawn in `errors`."""

from app.domain.access_errors import TooMany
from app.domain.errors import JobFault, Refused


class RepositoryNotFound(Refused):
    code = "repository-not-found"
    title = "No such repository on the hub"
    message = (
        "{field}: the hub has no model repository {repository}, or it is private and the "
        "service's token may not see it"
    )


class RepositoryGated(Refused):
    code = "repository-gated"
    title = "The repository is gated"
    message = (
        "{field}: {repository} is gated, and the service's token has no access: accept its terms "
        "on the hub with the token's account, and set HF_TOKEN where the service runs"
    )


class RevisionNotFound(Refused):
    code = "revision-not-found"
    title = "No such revision of the repository"
    message = "{field}: {repository} has no branch, tag or commit {revision}"


class HubFileCorrupt(JobFault):
    code = "hub-file-corrupt"
    title = "A file from the hub is not what the hub says it is"
    message = "{file} of {repository} at {revision}: {reason}"


class HubRefused(JobFault):
    code = "hub-refused"
    title = "The hub refuses the service's request"
    message = "{repository} at {revision}: the hub answers {status}; see the service's HF_TOKEN"


class HubNotWanted(Refused):
    code = "hub-not-wanted"
    title = "This service takes nothing from a hub"
    message = "this service takes nothing from a hub (ADAPTER_SAFETY_HUB); upload the files"


class NotInCache(Refused):
    code = "not-in-cache"
    title = "The service is offline and does not have it"
    message = "{field}: {repository} at {revision} is not here, and HF_HUB_OFFLINE is set"


class HubCacheFull(JobFault):
    code = "hub-cache-full"
    title = "The models are larger than the cache for them"
    message = (
        "the models need {needed_bytes} bytes, and the cache may have {limit_bytes} "
        "(ADAPTER_SAFETY_HUB_CACHE_BYTES)"
    )


class ImportsBusy(TooMany):
    code = "imports-busy"
    title = "Too many imports from the hub at once"
    message = "{limit} adapters are being imported already; try again in {retry_after_s} seconds"
