"""Routes that tell of a repository and give its files."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import yaml

from tests.hub import errors
from tests.hub.objects import Entry, git_sha1
from tests.hub.ranges import Sending, plan
from tests.hub.repositories import Commit, Repository
from tests.hub.state import State
from tests.hub.wire import Answer, Call, told

Json = dict[str, Any]


def whoami(state: State, call: Call) -> Answer:
    user = state.user(call)
    if user is None:
        raise errors.HubError(401, "Invalid username or password.")
    access = {"displayName": "test", "role": user.role}
    auth = {"type": "access_token", "accessToken": access}
    me = {"type": "user", "id": user.name, "name": user.name, "fullname": user.name}
    return told({**me, "isPro": False, "orgs": [], "auth": auth})


def model_info(state: State, call: Call, name: str, rev: str = "main") -> Answer:
    repo, _ = state.find(call, name)
    commit = repo.resolve(rev)
    blobs = call.request.query.get("blobs", "").lower() in ("true", "1")
    card = _card(commit)
    return told(
        {
            "_id": repo.id,
            "id": name,
            "modelId": name,
            "author": name.split("/")[0],
            "sha": commit.sha,
            "lastModified": commit.date,
            "createdAt": repo.created,
            "private": repo.private,
            "gated": "manual" if repo.gated_to is not None else False,
            "disabled": repo.disabled,
            "downloads": 0,
            "likes": 0,
            "tags": [*card.get("tags", []), "region:us"],
            "cardData": card,
            "siblings": [_sibling(state, repo, p, commit.tree[p], blobs) for p in _paths(commit)],
        }
    )


def refs(state: State, call: Call, name: str) -> Answer:
    repo, _ = state.find(call, name)
    found: Json = {"branches": _refs(repo, "refs/heads/"), "tags": _refs(repo, "refs/tags/")}
    found["converts"] = []
    if call.request.query.get("include_prs"):
        found["pullRequests"] = _refs(repo, "refs/pr/")
    return told(found)


def commits(state: State, call: Call, name: str, rev: str) -> Answer:
    repo, _ = state.find(call, name)
    return told(
        [
            {
                "id": commit.sha,
                "title": commit.title,
                "message": commit.description,
                "authors": [{"user": commit.author}],
                "date": commit.date,
            }
            for commit in repo.history(repo.resolve(rev))
        ]
    )


def tree(state: State, call: Call, name: str, rev: str, path: str = "") -> Answer:
    repo, _ = state.find(call, name)
    commit = repo.resolve(rev)
    everything = call.request.query.get("recursive", "").lower() in ("true", "1")
    found = _listed(state, repo, commit, path, everything)
    if path and not found:
        raise errors.entry_not_found(commit.sha)
    first = int(call.request.query.get("cursor") or 0)
    stop = first + state.tree_page
    headers = {"X-Repo-Commit": commit.sha}
    if stop < len(found):
        query = urlencode({**call.request.query, "cursor": str(stop)})
        headers["Link"] = f'<{call.base}{call.raw_path}?{query}>; rel="next"'
    return told(found[first:stop], **headers)


def paths_info(state: State, call: Call, name: str, rev: str) -> Answer:
    repo, _ = state.find(call, name)
    commit = repo.resolve(rev)
    wanted = parse_qs(call.body().decode()).get("paths", [])
    return told([_file(state, repo, p, commit.tree[p]) for p in wanted if p in commit.tree])


def resolve(state: State, call: Call, name: str, rev: str, path: str) -> Answer | Sending:
    repo, user = state.find(call, name)
    repo.check_downloads(user)
    commit = repo.resolve(rev)
    entry = commit.tree.get(path)
    if entry is None:
        raise errors.entry_not_found(commit.sha)
    call.request.file = path
    headers = _file_headers(state, repo, commit, path)
    if entry.lfs:
        return _redirect(302, state.cdn.download_url(entry.blob, name, path), headers)
    if state.resolve_cache and not call.raw_path.startswith("/api/"):
        aside = f"/api/resolve-cache/models/{name}/{commit.sha}/{quote(path)}"
        return _redirect(307, aside, headers)
    sending = plan(entry.blob, call.request, state.faults)
    sending.headers |= {"ETag": headers["ETag"], "X-Repo-Commit": commit.sha}
    return sending


def raw(state: State, call: Call, name: str, rev: str, path: str) -> Answer:
    """As git has it: of an LFS file, the pointer."""
    repo, user = state.find(call, name)
    repo.check_downloads(user)
    commit = repo.resolve(rev)
    entry = commit.tree.get(path)
    if entry is None:
        raise errors.entry_not_found(commit.sha)
    return Answer(body=entry.pointer if entry.lfs else entry.blob.read())


def _file_headers(state: State, repo: Repository, commit: Commit, path: str) -> dict[str, str]:
    entry = commit.tree[path]
    return {
        "X-Repo-Commit": commit.sha,
        "ETag": f'"{entry.git_sha1}"',
        "X-Linked-ETag": f'"{_etag(state, repo, path, entry)}"',
        "X-Linked-Size": str(entry.blob.size),
        "Accept-Ranges": "bytes",
    }


def _redirect(status: int, location: str, headers: dict[str, str]) -> Answer:
    text = f"Redirecting to {location}".encode()
    return Answer(status, {**headers, "Location": location, "Content-Type": "text/plain"}, text)


def _etag(state: State, repo: Repository, path: str, entry: Entry) -> str:
    wrong = state.faults.take("wrong_sha", repo.name, path) if entry.lfs else None
    return wrong or entry.etag


def _paths(commit: Commit) -> list[str]:
    return sorted(commit.tree)


def _refs(repo: Repository, prefix: str) -> list[Json]:
    return [
        {
            "name": ref if prefix == "refs/pr/" else ref.removeprefix(prefix),
            "ref": ref,
            "targetCommit": sha,
        }
        for ref, sha in repo.refs.items()
        if ref.startswith(prefix)
    ]


def _sibling(state: State, repo: Repository, path: str, entry: Entry, blobs: bool) -> Json:
    if not blobs:
        return {"rfilename": path}
    sibling = {"rfilename": path, "size": entry.blob.size, "blobId": entry.git_sha1}
    if entry.lfs:
        sha256 = _etag(state, repo, path, entry)
        pointer_size = len(entry.pointer)
        sibling["lfs"] = {"sha256": sha256, "size": entry.blob.size, "pointerSize": pointer_size}
    return sibling


def _file(state: State, repo: Repository, path: str, entry: Entry) -> Json:
    file = {"type": "file", "path": path, "size": entry.blob.size, "oid": entry.git_sha1}
    if entry.lfs:
        oid, pointer_size = _etag(state, repo, path, entry), len(entry.pointer)
        file["lfs"] = {"oid": oid, "size": entry.blob.size, "pointerSize": pointer_size}
    return file


def _folder(path: str, commit: Commit) -> Json:
    inside = "".join(
        f"{name} {commit.tree[name].git_sha1}\n"
        for name in _paths(commit)
        if name.startswith(f"{path}/")
    )
    return {"type": "directory", "path": path, "size": 0, "oid": git_sha1(b"tree", inside.encode())}


def _listed(
    state: State, repo: Repository, commit: Commit, top: str, everything: bool
) -> list[Json]:
    prefix = f"{top}/" if top else ""
    found: dict[str, Json] = {}
    for path in _paths(commit):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if everything else min(len(parts), 2)):
            folder = prefix + "/".join(parts[:depth])
            found.setdefault(folder, _folder(folder, commit))
        if everything or len(parts) == 1:
            found[path] = _file(state, repo, path, commit.tree[path])
    return list(found.values())


def _card(commit: Commit) -> Mapping[str, Any]:
    readme = commit.tree.get("README.md")
    text = readme.blob.read().decode(errors="replace") if readme else ""
    return card_of(text) or {}


def card_of(text: str) -> Mapping[str, Any] | None:
    """The front matter of a model's card; None without one."""
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return None
    card = yaml.safe_load(text[4 : text.index("\n---", 4)])
    return card if isinstance(card, dict) else None
