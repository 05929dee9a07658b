"""What the Hub refuses, with the status, the code and the words by which its client knows it.

HubError
├── moved               307
├── repo_not_found      401 without a token, 404 with one
├── bad_token           401
├── gated               401 without a token, 403 with one
├── revision_not_found  404
├── entry_not_found     404
├── forbidden           403
├── stale_parent        412
└── bad_request         400
"""


class HubError(Exception):
    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        commit: str | None = None,
        location: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.commit = status, message, code, commit
        self.location = location

    @property
    def headers(self) -> dict[str, str]:
        told = {"X-Error-Message": self.message}
        if self.location:
            told = {"Location": self.location}
        if self.code:
            told["X-Error-Code"] = self.code
        if self.commit:
            told["X-Repo-Commit"] = self.commit
        return told


def moved(location: str) -> HubError:
    """To the repository's new name, on the same host."""
    message = f"Temporary Redirect. Redirecting to {location}"
    return HubError(307, message, location=location)


def repo_not_found(*, known_user: bool) -> HubError:
    """The real Hub leaves out the code for a stranger; it is here because the client then looks
    for `https://` in the URL, which a server on loopback has not."""
    if known_user:
        return HubError(404, "Repository not found", "RepoNotFound")
    return HubError(401, "Invalid username or password.", "RepoNotFound")


def bad_token() -> HubError:
    return HubError(401, "Invalid credentials in Authorization header")


def gated(repo: str, *, known_user: bool) -> HubError:
    if known_user:
        message = f"Access to model {repo} is restricted and you are not in the authorized list."
        return HubError(403, message, "GatedRepo")
    message = f"Access to model {repo} is restricted. You must be authenticated to access it."
    return HubError(401, message, "GatedRepo")


def disabled() -> HubError:
    return HubError(403, "Access to this resource is disabled.")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(commit: str, message: str = "Entry not found") -> HubError:
    return HubError(404, message, "EntryNotFound", commit)


def forbidden(message: str = "Forbidden: pass `create_pr=1` to open a pull request") -> HubError:
    return HubError(403, message)


def stale_parent() -> HubError:
    return HubError(412, "A commit has happened since. Please refresh and try again.")


def bad_request(message: str) -> HubError:
    return HubError(400, message)


def not_found() -> HubError:
    return HubError(404, "Sorry, we can't find the page you are looking for.")
