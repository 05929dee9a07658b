"""Routes that change a repository's files."""

import base64
import json
from fnmatch import fnmatch
from typing import Any

import yaml

from tests.hub import errors
from tests.hub.objects import Entry
from tests.hub.reading import card_of
from tests.hub.repositories import Commit, Repository, User, full_ref
from tests.hub.state import State
from tests.hub.wire import Answer, Call, told

Json = dict[str, Any]
REGULAR_AT_MOST_BYTES = 10 * 1024 * 1024  # git itself takes no larger file


def validate_yaml(state: State, call: Call) -> Answer:
    try:
        card = card_of(call.json()["content"])
    except yaml.YAMLError as error:
        return told({"errors": [{"message": str(error)}], "warnings": []}, 400)
    missing = {"message": "empty or missing yaml metadata in repo card"}
    return told({"errors": [], "warnings": [] if card else [missing]})


def preupload(state: State, call: Call, name: str, rev: str) -> Answer:
    repo, user = state.find(call, name)
    _check(repo, user, call)
    commit = repo.resolve(rev)
    return told({"files": [_mode(repo, commit, file) for file in call.json()["files"]]})


def lfs_batch(state: State, call: Call, name: str) -> Answer:
    """Where to put each file; what is already there needs no action."""
    repo, user = state.find(call, name)
    repo.check_proposes(user)
    asked = call.json()["objects"]
    return told({"transfer": "basic", "objects": [_upload(state, name, item) for item in asked]})


def lfs_verify(state: State, call: Call, name: str) -> Answer:
    repo, user = state.find(call, name)
    repo.check_proposes(user)
    wanted = call.json()
    blob = state.store.find(wanted["oid"])
    if blob is None or blob.size != wanted["size"]:
        raise errors.HubError(404, "Object not found")
    return told({})


def commit(state: State, call: Call, name: str, rev: str) -> Answer:
    repo, user = state.find(call, name)
    author = _check(repo, user, call)
    lines = [json.loads(line) for line in call.body().splitlines() if line]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if call.request.query.get("create_pr") == "1":
        return _propose(state, repo, author, rev, header, lines)
    ref = full_ref(rev)
    if ref not in repo.refs:
        raise errors.revision_not_found(rev)
    _check_is_head(repo, ref, header.get("parentCommit"))
    made = _commit(state, repo, repo.resolve(ref), author, header, lines)
    state.push(repo, ref, made)
    if ref.startswith("refs/pr/"):
        pull_request = repo.discussion(int(ref.rsplit("/", 1)[1]))
        pull_request.committed(author.name, made.title, made.sha)
    return told(_done(state, repo, made))


def _check(repo: Repository, user: User | None, call: Call) -> User:
    proposes = call.request.query.get("create_pr") == "1"
    ours = repo.check_proposes if proposes or "/refs/pr/" in call.request.path else None
    return (ours or repo.check_writes)(user)


def _mode(repo: Repository, commit: Commit, file: Json) -> Json:
    path = file["path"]
    listed = any(fnmatch(path, pattern) for pattern in repo.lfs)
    binary = b"\0" in base64.b64decode(file["sample"])
    mode = "lfs" if listed or binary or file["size"] > REGULAR_AT_MOST_BYTES else "regular"
    entry = commit.tree.get(path)
    known = {"oid": entry.etag} if entry else {}
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, **known}


def _upload(state: State, name: str, item: Json) -> Json:
    told = {"oid": item["oid"], "size": item["size"]}
    if state.store.find(item["oid"]):
        return told
    verify = f"{state.base}/{name}.git/info/lfs/objects/verify"
    actions = {"upload": {"href": state.cdn.upload_url(item["oid"])}, "verify": {"href": verify}}
    return {**told, "authenticated": True, "actions": actions}


def _check_is_head(repo: Repository, ref: str, parent: str | None) -> None:
    if parent and not repo.refs[ref].startswith(parent):
        raise errors.stale_parent()


def _propose(
    state: State, repo: Repository, author: User, rev: str, header: Json, lines: list[Json]
) -> Answer:
    """A commit in a pull request of its own, begun at the parent that the client names."""
    base = full_ref(rev)
    if base not in repo.refs:
        raise errors.revision_not_found(rev)
    parent = header.get("parentCommit")
    if not state.stale_pull_requests:
        _check_is_head(repo, base, parent)
    made = _commit(state, repo, repo.resolve(parent or base), author, header, lines)
    pull_request = state.open(repo, author, made.title, made.description, base)
    state.push(repo, pull_request.ref, made)
    pull_request.committed(author.name, made.title, made.sha)
    page = f"{state.base}/{repo.name}/discussions/{pull_request.number}"
    return told({**_done(state, repo, made), "pullRequestUrl": page})


def _commit(
    state: State, repo: Repository, parent: Commit, author: User, header: Json, lines: list[Json]
) -> Commit:
    tree = dict(parent.tree)
    for line in lines:
        if line["key"] != "header":
            _apply(state, tree, parent, line["key"], line["value"])
    title, description = header["summary"], header.get("description") or ""
    return Commit.of(parent.sha, tree, title, author.name, description)


def _apply(state: State, tree: dict[str, Entry], parent: Commit, key: str, value: Json) -> None:
    path = value["path"]
    if key == "file":
        tree[path] = Entry(state.store.put(base64.b64decode(value["content"])), lfs=False)
    elif key == "lfsFile":
        blob = state.store.find(value["oid"])
        if blob is None:
            raise errors.bad_request(f"LFS pointer pointed to a file that does not exist: {path}")
        tree[path] = Entry(blob, lfs=True)
    elif key == "deletedFile":
        if tree.pop(path, None) is None:
            raise errors.entry_not_found(parent.sha, "A file with this name doesn't exist")
    elif key == "deletedFolder":
        for inside in [known for known in tree if known.startswith(path.rstrip("/") + "/")]:
            del tree[inside]
    else:
        raise errors.bad_request(f"Unknown operation {key}")


def _done(state: State, repo: Repository, made: Commit) -> Json:
    url = f"{state.base}/{repo.name}/commit/{made.sha}"
    return {"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""}
