"""Commits and pull requests that the real client makes."""

import hashlib
from pathlib import Path

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.fixtures import api_of
from tests.hub.server import LocalHub

REPO = "acme/adapter"
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
CARD = b"---\ntags: [lora]\n---\n# Patched\n"


@pytest.fixture
def hub(local_hub: LocalHub) -> LocalHub:
    local_hub.create(REPO)
    local_hub.commit(REPO, {"config.json": b"{}", "a/one.txt": b"1", "a/two.txt": b"2"})
    return local_hub


def add(path: str, data: bytes | Path) -> CommitOperationAdd:
    return CommitOperationAdd(path, data)


def test_a_commit_adds_deletes_and_copies(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS)
    operations = [
        add("README.md", CARD),
        add("w.safetensors", tmp_path / "weights"),
        CommitOperationDelete("a/"),
        CommitOperationCopy("config.json", "copy.json"),
    ]
    done = api_of(hub, hub.token).create_commit(REPO, operations, commit_message="Change")
    assert done.oid == hub.sha(REPO)
    expected = [".gitattributes", "README.md", "config.json", "copy.json", "w.safetensors"]
    assert hub.files(REPO) == expected
    assert hub.read(REPO, "main", "w.safetensors") == WEIGHTS
    assert hub.repository(REPO).resolve("main").tree["w.safetensors"].lfs


def test_contents_that_are_there_already_are_not_sent_again(hub: LocalHub) -> None:
    api = api_of(hub, hub.token)
    api.create_commit(REPO, [add("one.safetensors", WEIGHTS)], commit_message="One")
    api.create_commit(REPO, [add("two.safetensors", WEIGHTS)], commit_message="Two")
    assert len(hub.log.requests(host="cdn", method="PUT")) == 1
    before = hub.sha(REPO)
    api.create_commit(REPO, [add("two.safetensors", WEIGHTS)], commit_message="Nothing")
    assert hub.sha(REPO) == before


def test_an_upload_whose_digest_is_another_is_refused(hub: LocalHub) -> None:
    url = hub.cdn.upload_url(hashlib.sha256(WEIGHTS).hexdigest())
    assert httpx.put(url, content=WEIGHTS[:-1]).status_code == 400
    assert httpx.put(url, content=WEIGHTS).status_code == 200


def test_a_pull_request_holds_the_change_and_main_does_not(hub: LocalHub) -> None:
    parent = hub.sha(REPO)
    stranger = api_of(hub, hub.user("stranger"))
    done = stranger.create_commit(
        REPO,
        [add("w.safetensors", WEIGHTS), add("README.md", CARD)],
        commit_message="Patch it",
        commit_description="Because",
        create_pr=True,
        parent_commit=parent,
    )
    assert (done.pr_num, done.pr_revision) == (1, "refs/pr/1")
    assert (hub.sha(REPO), hub.sha(REPO, "refs/pr/1")) == (parent, done.oid)
    told = stranger.get_discussion_details(REPO, 1)
    assert (told.title, told.author, told.status) == ("Patch it", "stranger", "open")
    assert (told.is_pull_request, told.target_branch) == (True, "refs/heads/main")
    got = stranger.hf_hub_download(REPO, "w.safetensors", revision="refs/pr/1")
    assert Path(got).read_bytes() == WEIGHTS
    refs = stranger.list_repo_refs(REPO, include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]


def test_a_pull_request_takes_more_commits(hub: LocalHub) -> None:
    api = api_of(hub, hub.user("stranger"))
    api.create_commit(REPO, [add("one", b"1")], commit_message="One", create_pr=True)
    done = api.create_commit(REPO, [add("2", b"2")], commit_message="Two", revision="refs/pr/1")
    assert hub.sha(REPO, "refs/pr/1") == done.oid
    events = api.get_discussion_details(REPO, 1).events
    assert [event.summary for event in events if event.type == "commit"] == ["One", "Two"]


def test_a_pull_request_starts_from_the_parent_that_is_named(hub: LocalHub) -> None:
    old = hub.sha(REPO)
    hub.commit(REPO, {"later.txt": b"later"})
    api = api_of(hub, hub.token)
    propose = {"commit_message": "Patch", "create_pr": True, "parent_commit": old}
    api.create_commit(REPO, [add("one", b"1")], **propose)
    assert "later.txt" not in hub.files(REPO, "refs/pr/1")
    hub.state.stale_pull_requests = False
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(REPO, [add("one", b"1")], **propose)
    assert caught.value.response.status_code == 412


def test_a_merge_keeps_what_both_sides_changed(hub: LocalHub) -> None:
    api = api_of(hub, hub.token)
    operations = [add("new.txt", b"new"), CommitOperationDelete("a/one.txt")]
    api.create_commit(REPO, operations, commit_message="Patch", create_pr=True)
    hub.commit(REPO, {"later.txt": b"later"})
    api.merge_pull_request(REPO, 1)
    assert {"new.txt", "later.txt"} < set(hub.files(REPO))
    assert "a/one.txt" not in hub.files(REPO)
    told = api.get_discussion_details(REPO, 1)
    assert (told.status, told.merge_commit_oid) == ("merged", hub.sha(REPO))


def test_a_commit_on_a_parent_that_is_no_longer_the_head_is_refused(hub: LocalHub) -> None:
    old = hub.sha(REPO)
    head = hub.commit(REPO, {"later.txt": b"later"})
    api = api_of(hub, hub.token)
    change = {"commit_message": "Change", "operations": [add("one", b"1")]}
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_commit(REPO, parent_commit=old, **change)
    assert caught.value.response.status_code == 412
    api.create_commit(REPO, parent_commit=head, **change)


def test_who_may_not_write_may_only_propose(hub: LocalHub) -> None:
    change = {"commit_message": "Change"}
    for token, status in ((hub.user("x"), 403), (hub.user("y", "read"), 403), (None, 401)):
        with pytest.raises(HfHubHTTPError) as caught:
            api_of(hub, token).create_commit(REPO, [add("one", b"1")], **change)
        assert caught.value.response.status_code == status
    reader = api_of(hub, hub.user("y", "read"))
    with pytest.raises(HfHubHTTPError):
        reader.create_commit(REPO, [add("one", b"1")], create_pr=True, **change)


def test_what_is_not_there_is_not_found(hub: LocalHub) -> None:
    api = api_of(hub, hub.token)
    gone = [CommitOperationDelete("not-there")]
    with pytest.raises(EntryNotFoundError):
        api.create_commit(REPO, gone, commit_message="Delete")
    with pytest.raises(RevisionNotFoundError):
        api.create_commit(REPO, [add("1", b"1")], commit_message="Add", revision="nowhere")
    with pytest.raises(RepositoryNotFoundError):
        api.create_commit("acme/none", [add("1", b"1")], commit_message="Add")


def test_a_card_that_is_no_yaml_is_refused(hub: LocalHub) -> None:
    api = api_of(hub, hub.token)
    broken = [add("README.md", b"---\n: [\n---\n")]
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.create_commit(REPO, broken, commit_message="Card")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.create_commit(REPO, [add("README.md", b"# Bare\n")], commit_message="Card")
