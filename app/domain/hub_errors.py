"""What can go wrong with a hub's repositories; the tree is drawn in `errors`."""

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
