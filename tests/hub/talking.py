"""Routes of discussions and pull requests."""

from tests.hub import errors
from tests.hub.discussions import Discussion
from tests.hub.repositories import MAIN, Repository, User
from tests.hub.state import State
from tests.hub.wire import Answer, Call, told

PAGE = 10  # discussions


def listed(state: State, call: Call, name: str) -> Answer:
    repo, _ = state.find(call, name)
    query = call.request.query
    found = [talk for talk in reversed(repo.discussions) if _wanted(talk, query)]
    start = int(query.get("p") or 0) * PAGE
    page = [talk.listed(name) for talk in found[start : start + PAGE]]
    return told({"discussions": page, "count": len(found), "start": start})


def opened(state: State, call: Call, name: str) -> Answer:
    repo, user = state.find(call, name)
    author = repo.check_proposes(user)
    asked = call.json()
    if len(asked["title"]) < 3:
        raise errors.bad_request("title must be at least 3 characters long")
    base = MAIN if asked.get("pullRequest") else None
    talk = state.open(repo, author, asked["title"], asked["description"], base)
    if talk.is_pull_request:
        talk.status = "draft"
        state.push(repo, talk.ref, repo.resolve(MAIN))
    url = f"{state.base}/{name}/discussions/{talk.number}"
    return told({"num": talk.number, "pullRequest": talk.is_pull_request, "url": url})


def details(state: State, call: Call, name: str, number: str) -> Answer:
    repo, _ = state.find(call, name)
    return told(repo.discussion(int(number)).told(name))


def comment(state: State, call: Call, name: str, number: str) -> Answer:
    repo, user = state.find(call, name)
    author = repo.check_proposes(user)
    talk = repo.discussion(int(number))
    return told({"newMessage": state.comment(repo, author, talk, call.json()["comment"])})


def status(state: State, call: Call, name: str, number: str) -> Answer:
    repo, talk, user = _owned(state, call, name, number)
    asked = call.json()
    if asked.get("comment"):
        state.comment(repo, user, talk, asked["comment"])
    event = talk.change_status(user.name, asked["status"])
    state.changed(repo, talk)
    return told({"newStatus": event})


def title(state: State, call: Call, name: str, number: str) -> Answer:
    repo, talk, user = _owned(state, call, name, number)
    event = talk.rename(user.name, call.json()["title"])
    state.changed(repo, talk)
    return told({"newTitle": event})


def merge(state: State, call: Call, name: str, number: str) -> Answer:
    repo, user = state.find(call, name)
    author = repo.check_writes(user)
    talk = repo.discussion(int(number))
    if not talk.is_pull_request or talk.status not in ("open", "draft"):
        raise errors.bad_request("This pull request cannot be merged")
    state.merge(repo, author, talk)
    return told({})


def _owned(state: State, call: Call, name: str, number: str) -> tuple[Repository, Discussion, User]:
    """A discussion that whoever asks may change: its author, and who writes the repository."""
    repo, user = state.find(call, name)
    talk = repo.discussion(int(number))
    author = repo.check_proposes(user)
    if author.name != talk.author:
        repo.check_writes(user)
    return repo, talk, author


def _wanted(talk: Discussion, query: dict[str, str]) -> bool:
    kind, status = query.get("type", "all"), query.get("status", "all")
    if kind != "all" and talk.is_pull_request != (kind == "pull_request"):
        return False
    if status != "all" and (talk.status in ("open", "draft")) != (status == "open"):
        return False
    return query.get("author") in (None, talk.author)
