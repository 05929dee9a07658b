"""Webhooks as a customer has them: asked for over HTTP, and received over HTTP."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import WebhookVerificationError

from app.config import Settings
from app.domain.webhook import MAX_ENDPOINTS
from tests.factory import World
from tests.service import Service, running
from tests.uploads import parts
from tests.webhooks_receiver import Answer, Receiver

EVENTS = ["job.succeeded", "job.failed"]
PROBLEM = "urn:adapter-safety:problem:"
NewHook = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory, model_root: Path) -> Iterator[Service]:
    """A service that may call this machine."""
    with running(
        tmp_path_factory.mktemp("calling"),
        model_root,
        ADAPTER_SAFETY_WEBHOOK_ALLOW="127.0.0.0/8",
        ADAPTER_SAFETY_WEBHOOK_EVERY_S="0.1",
    ) as service:
        yield service


@pytest.fixture(scope="module")
def client(calling: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=calling.url, timeout=60) as client:
        yield client


@pytest.fixture
def new_hook(client: httpx.Client) -> Iterator[NewHook]:
    """Gone again after the test, because a tenant has room for so many."""
    made: list[str] = []

    def make(url: str, **changes: object) -> dict[str, Any]:
        answer = client.post("/v1/webhooks", json={"url": url, "events": EVENTS, **changes})
        assert answer.status_code == 201, answer.text
        hook: dict[str, Any] = answer.json()
        assert answer.headers["location"] == hook["links"]["self"]
        made.append(hook["id"])
        return hook

    yield make
    for hook_id in made:
        client.delete(f"/v1/webhooks/{hook_id}")


@pytest.fixture(scope="module")
def adapter(client: httpx.Client, llama_world: World) -> str:
    return str(client.post("/v1/adapters", files=parts(llama_world.adapter)).json()["id"])


def run_job(client: httpx.Client, adapter: str) -> dict[str, Any]:
    body = {"kind": "score", "adapter": adapter, "base_model": "base", "chat_model": "chat"}
    job: dict[str, Any] = client.post("/v1/jobs", json=body, headers={"Prefer": "wait=60"}).json()
    assert job["status"] == "succeeded", job
    return job


def deliveries(client: httpx.Client, hook: dict[str, Any], **query: str) -> list[dict[str, Any]]:
    answer = client.get(hook["links"]["deliveries"], params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def settled(client: httpx.Client, hook: dict[str, Any]) -> dict[str, Any]:
    """The only delivery, when it has been tried and its attempt is noted."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [client.get(each["links"]["self"]).json() for each in deliveries(client, hook)]
        if found and found[0]["log"]:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("nothing was tried")


def test_a_job_that_ends_is_told_and_what_is_told_leads_to_its_report(
    client: httpx.Client, new_hook: NewHook, adapter: str
) -> None:
    with Receiver(Answer(200, body=b"thanks")) as receiver:
        hook = new_hook(receiver.url)
        job = run_job(client, adapter)
        came = receiver.wait_for(1)[0]
        delivery = settled(client, hook)
    event = came.verified(hook["secret"])
    assert event["type"] == "job.succeeded"
    assert event["data"]["id"] == job["id"]
    assert client.get(event["data"]["links"]["report"]).status_code == 200
    assert client.get(event["data"]["links"]["self"]).json()["status"] == "succeeded"
    assert (delivery["state"], delivery["attempts"]) == ("delivered", 1)
    assert delivery["body"] == came.body.decode()
    assert delivery["event"] == came.headers["webhook-id"]
    (attempt,) = delivery["log"]
    assert (attempt["status"], attempt["response"]) == (200, "thanks")
    with pytest.raises(WebhookVerificationError):
        came.verified("whsec_" + "A" * 43 + "=")


def test_a_redelivery_comes_again_under_the_same_id(
    client: httpx.Client, new_hook: NewHook, adapter: str
) -> None:
    with Receiver(Answer(500), Answer()) as receiver:
        hook = new_hook(receiver.url)
        run_job(client, adapter)
        failed = settled(client, hook)
        assert (failed["state"], failed["due_at"] is None) == ("pending", False)
        answer = client.post(f"{failed['links']['self']}/redeliver")
        assert (answer.status_code, answer.json()["state"]) == (202, "pending")
        first, second = receiver.wait_for(2)[:2]
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == failed["event"]
    assert first.body == second.body


def test_a_receiver_that_is_gone_is_disabled_until_it_is_enabled(
    client: httpx.Client, new_hook: NewHook, adapter: str
) -> None:
    with Receiver(Answer(410), Answer()) as receiver:
        hook = new_hook(receiver.url)
        run_job(client, adapter)
        delivery = settled(client, hook)
        shown = client.get(hook["links"]["self"]).json()
        assert shown["disabled_at"] is not None
        assert "410" in shown["disabled_reason"]
        refused = client.post(f"{delivery['links']['self']}/redeliver")
        assert (refused.status_code, refused.json()["type"]) == (409, f"{PROBLEM}webhook-disabled")
        run_job(client, adapter)  # of which nothing is told
        enabled = client.post(f"{hook['links']['self']}/enable").json()
        assert enabled["disabled_at"] is None
        assert client.post(f"{delivery['links']['self']}/redeliver").status_code == 202
        assert len(receiver.wait_for(2)) == 2
    assert len(deliveries(client, hook)) == 1


def test_a_secret_is_shown_once_and_a_rotated_one_goes_on_signing(
    client: httpx.Client, new_hook: NewHook, adapter: str
) -> None:
    with Receiver() as receiver:
        hook = new_hook(receiver.url)
        rotated = client.post(f"{hook['links']['self']}/rotate")
        assert rotated.status_code == 200
        new = rotated.json()["secret"]
        run_job(client, adapter)
        came = receiver.wait_for(1)[0]
    assert came.verified(hook["secret"]) == came.verified(new)
    shown = client.get(hook["links"]["self"])
    assert new not in shown.text
    assert hook["secret"] not in shown.text
    assert "whsec_" not in client.get("/v1/webhooks").text
    expires = [secret["expires_at"] for secret in shown.json()["secrets"]]
    assert (expires[0], len(expires)) == (None, 2)


def test_a_deleted_webhook_is_not_there_and_its_deliveries_are_not_either(
    client: httpx.Client, new_hook: NewHook, adapter: str
) -> None:
    with Receiver(Answer(500)) as receiver:
        hook = new_hook(receiver.url)
        run_job(client, adapter)
        delivery = settled(client, hook)
        assert client.delete(hook["links"]["self"]).status_code == 204
    for path in (hook["links"]["self"], hook["links"]["deliveries"], delivery["links"]["self"]):
        assert client.get(path).status_code == 404
    for path in (f"{delivery['links']['self']}/redeliver", f"{hook['links']['self']}/rotate"):
        assert client.post(path).status_code == 404
    assert client.delete(hook["links"]["self"]).status_code == 404


def test_deliveries_are_listed_by_state_and_page(
    client: httpx.Client, new_hook: NewHook, adapter: str
) -> None:
    with Receiver() as receiver:
        hook = new_hook(receiver.url)
        for _ in range(2):
            run_job(client, adapter)
        receiver.wait_for(2)
    page = client.get(hook["links"]["deliveries"], params={"limit": 1}).json()
    rest = client.get(
        hook["links"]["deliveries"], params={"limit": 1, "cursor": page["next_cursor"]}
    ).json()
    assert page["items"][0]["created_at"] > rest["items"][0]["created_at"]
    assert rest["next_cursor"] is None
    assert deliveries(client, hook, state="failed") == []


# ----------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": "https://169.254.169.254/latest"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "https://[2002:a00:1::]/"}, "url"),
        ({"url": "https://167772161/"}, "url"),
        ({"url": "https://0xa000001/"}, "url"),
        ({"url": "http://10.0.0.1/"}, "url"),
        ({"url": "ftp://hooks.example/"}, "url"),
        ({"url": "https://u:p@hooks.example/"}, "url"),
        ({"url": "https://hooks.example:22/"}, "url"),
        ({"url": ""}, "url"),
        ({"events": []}, "events"),
        ({"events": ["job.cancelled"]}, "events.0"),
        ({"description": "a\nb"}, "description"),
        ({"secret": "whsec_mine"}, "secret"),
    ],
)
def test_what_is_refused_names_its_field_and_is_not_kept(
    client: httpx.Client, changes: dict[str, Any], field: str
) -> None:
    body = {"url": "https://hooks.example/", "events": EVENTS, **changes}
    answer = client.post("/v1/webhooks", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert client.get("/v1/webhooks").json()["items"] == []


def test_a_tenant_has_room_for_so_many(client: httpx.Client, new_hook: NewHook) -> None:
    hooks = [new_hook("https://hooks.example/") for _ in range(MAX_ENDPOINTS)]
    body = {"url": "https://hooks.example/", "events": EVENTS}
    answer = client.post("/v1/webhooks", json=body)
    assert (answer.status_code, answer.json()["type"]) == (409, f"{PROBLEM}too-many-webhooks")
    listed = client.get("/v1/webhooks", params={"limit": 200}).json()["items"]
    assert [each["id"] for each in listed] == [hook["id"] for hook in reversed(hooks)]


# ----------------------------------------------------------------------------------------- settings
def test_an_entry_that_is_no_network_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a network nor a host name"):
        Settings(data_dir=tmp_path, webhook_allow="10.0.0.1/8")
    rules = Settings(data_dir=tmp_path, webhook_allow="10.0.0.0/8, hooks.internal").callback_rules
    assert len(rules.allowed.networks) == len(rules.allowed.names) == 1
    assert not rules.is_proxied


def test_a_proxy_is_an_http_url(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Settings(data_dir=tmp_path, webhook_proxy="socks5://127.0.0.1:1")
    settings = Settings(data_dir=tmp_path, webhook_proxy="http://127.0.0.1:3128")
    assert settings.callback_rules.is_proxied
