"""Discussions, and the webhooks that tell of them and of every push."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from tests.hub.fixtures import api_of
from tests.hub.server import LocalHub

REPO = "acme/adapter"


@pytest.fixture
def hub(local_hub: LocalHub) -> LocalHub:
    local_hub.create(REPO)
    return local_hub


class Receiver(HTTPServer):
    """What a webhook leads to: keeps what comes, and answers one status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"
        self.got: list[tuple[dict[str, str], Any]] = []
        self.status = 202


class Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.got.append((dict(self.headers), json.loads(self.rfile.read(length))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_discussion_is_opened_answered_renamed_closed_and_read(hub: LocalHub) -> None:
    api = api_of(hub, hub.user("reviewer"))
    opened = api.create_discussion(REPO, "A finding", description="Look here")
    assert (opened.num, opened.status, opened.author) == (1, "open", "reviewer")
    assert api.comment_discussion(REPO, 1, "More").content == "More"
    api.rename_discussion(REPO, 1, "Another finding")
    api.change_discussion_status(REPO, 1, "closed", comment="Done")
    told = api.get_discussion_details(REPO, 1)
    assert (told.title, told.status, told.is_pull_request) == ("Another finding", "closed", False)
    texts = [event.content for event in told.events if event.type == "comment"]
    assert texts == ["Look here", "More", "Done"]


def test_discussions_are_listed_newest_first_page_by_page(hub: LocalHub) -> None:
    api = api_of(hub, hub.token)
    for number in range(12):
        api.create_discussion(REPO, f"Finding {number}", pull_request=number == 0)
    api.change_discussion_status(REPO, 12, "closed")
    assert [talk.num for talk in api.get_repo_discussions(REPO)] == list(range(12, 0, -1))
    listed = api.get_repo_discussions(REPO, discussion_type="pull_request")
    assert [(talk.num, talk.status) for talk in listed] == [(1, "draft")]
    closed = api.get_repo_discussions(REPO, discussion_status="closed", author="owner")
    assert [talk.num for talk in closed] == [12]


def test_a_stranger_may_not_talk_nor_close_what_others_opened(hub: LocalHub) -> None:
    api_of(hub, hub.token).create_discussion(REPO, "A finding")
    other = api_of(hub, hub.user("other"))
    with pytest.raises(HfHubHTTPError):
        api_of(hub).comment_discussion(REPO, 1, "Hello")
    with pytest.raises(HfHubHTTPError):
        other.change_discussion_status(REPO, 1, "closed")
    with pytest.raises(HfHubHTTPError):
        other.get_discussion_details(REPO, 2)


def test_a_push_is_told_to_who_watches(hub: LocalHub, receiver: Receiver) -> None:
    hook = hub.webhooks.add(receiver.url, "secret", {REPO})
    hub.create("acme/unwatched")
    old = hub.sha(REPO)
    new = hub.commit(REPO, {"config.json": b"{}"})
    assert [delivery.status for delivery in hub.webhooks.wait()] == [202]
    [(headers, told)] = receiver.got
    assert headers["X-Webhook-Secret"] == "secret"
    assert told["event"] == {"action": "update", "scope": "repo.content"}
    assert told["updatedRefs"] == [{"ref": "refs/heads/main", "oldSha": old, "newSha": new}]
    assert told["webhook"] == {"id": hook.id, "version": 3}
    assert (told["repo"]["name"], told["repo"]["headSha"]) == (REPO, new)
    assert told["repo"]["url"]["api"] == f"{hub.endpoint}/api/models/{REPO}"


def test_a_pull_request_is_told_as_a_discussion_and_as_a_push(
    hub: LocalHub, receiver: Receiver
) -> None:
    hub.webhooks.add(receiver.url)
    api = api_of(hub, hub.token)
    change = [CommitOperationAdd("one", b"1")]
    done = api.create_commit(REPO, change, commit_message="Patch", create_pr=True)
    api.comment_discussion(REPO, 1, "Look")
    api.change_discussion_status(REPO, 1, "closed")
    hub.delete_ref(REPO, "refs/pr/1")
    hub.webhooks.wait()
    told = [payload for _, payload in receiver.got]
    assert [(t["event"]["action"], t["event"]["scope"]) for t in told] == [
        ("create", "discussion"),
        ("update", "repo.content"),
        ("create", "discussion.comment"),
        ("update", "discussion"),
        ("update", "repo.content"),
    ]
    assert told[0]["discussion"]["changes"] == {"base": "refs/heads/main"}
    assert told[1]["updatedRefs"] == [{"ref": "refs/pr/1", "oldSha": None, "newSha": done.oid}]
    assert told[2]["comment"]["content"] == "Look"
    assert told[3]["discussion"]["status"] == "closed"
    assert told[4]["updatedRefs"] == [{"ref": "refs/pr/1", "oldSha": done.oid, "newSha": None}]
    assert all("X-Webhook-Secret" not in headers for headers, _ in receiver.got)


def test_a_delivery_tells_its_answer_and_can_be_sent_again(
    hub: LocalHub, receiver: Receiver
) -> None:
    receiver.status = 500
    hub.webhooks.add(receiver.url)
    hub.commit(REPO, {"one": b"1"})
    [failed] = hub.webhooks.wait()
    receiver.status = 200
    hub.webhooks.again(failed)
    assert [delivery.status for delivery in hub.webhooks.wait()] == [500, 200]
    assert receiver.got[0][1] == receiver.got[1][1]


def test_a_webhook_that_nothing_listens_to_is_an_error_on_record(
    hub: LocalHub, receiver: Receiver
) -> None:
    hook = hub.webhooks.add("http://127.0.0.1:1/")
    hub.commit(REPO, {"one": b"1"})
    [delivery] = hub.webhooks.wait()
    assert (delivery.status, "ConnectError" in (delivery.error or "")) == (None, True)
    hub.webhooks.remove(hook)
    hub.commit(REPO, {"two": b"2"})
    assert len(hub.webhooks.wait()) == 1
