"""API keys over HTTP: made, listed and revoked by an administrator of the same tenant alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.domain.access import parse_scopes
from app.storage.keys import SqlKeys
from tests.service import Service, running

NewClient = Callable[[str, str], httpx.Client]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, model_root: Path) -> Iterator[Service]:
    data = tmp_path_factory.mktemp("keys")
    with running(data, model_root, ADAPTER_SAFETY_AUTH="keys") as service:
        yield service


@pytest.fixture(scope="module")
def client_of(guarded: Service) -> Iterator[NewClient]:
    keys, clients = SqlKeys(f"sqlite:///{guarded.data}/records.sqlite3"), []

    def made(tenant: str, scope: str) -> httpx.Client:
        _, text = keys.create("first", tenant, parse_scopes(scope))
        clients.append(with_key(guarded, text))
        return clients[-1]

    yield made
    keys.close()
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def admin(client_of: NewClient) -> httpx.Client:
    return client_of("team-a", "admin")


def with_key(service: Service, text: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {text}"}
    return httpx.Client(base_url=service.url, timeout=30, headers=headers)


def make(admin: httpx.Client, name: str, *scopes: str) -> dict[str, str]:
    answer = admin.post("/v1/keys", json={"name": name, "scopes": list(scopes)})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_key_that_was_made_opens_what_its_scopes_say(
    guarded: Service, admin: httpx.Client
) -> None:
    made = make(admin, "pipeline", "read", "submit")
    assert (made["tenant"], made["scopes"]) == ("team-a", ["submit", "read"])
    with with_key(guarded, made["secret"]) as client:
        assert client.get("/v1/jobs").status_code == 200
        assert client.get("/v1/keys").status_code == 403


def test_the_secret_is_in_the_first_answer_alone(admin: httpx.Client) -> None:
    made = make(admin, "shown once", "read")
    listing = admin.get("/v1/keys")
    assert made["secret"] not in listing.text
    assert made["secret"].split("_")[2] not in listing.text
    assert {**listing.json()["items"][0], "secret": made["secret"]} == made


def test_a_revoked_key_opens_nothing_and_revoking_again_changes_nothing(
    guarded: Service, admin: httpx.Client
) -> None:
    made = make(admin, "short-lived", "read")
    first = admin.post(f"/v1/keys/{made['id']}/revoke")
    assert first.json()["revoked_at"] is not None
    assert admin.post(f"/v1/keys/{made['id']}/revoke").json() == first.json()
    with with_key(guarded, made["secret"]) as client:
        assert client.get("/v1/jobs").status_code == 401


def test_another_tenants_keys_are_not_there(client_of: NewClient, admin: httpx.Client) -> None:
    made, stranger = make(admin, "ours", "read"), client_of("team-b", "admin")
    assert {key["tenant"] for key in stranger.get("/v1/keys").json()["items"]} == {"team-b"}
    answer = stranger.post(f"/v1/keys/{made['id']}/revoke")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:adapter-safety:problem:key-not-found"
    assert {key["id"]: key for key in admin.get("/v1/keys").json()["items"]}[made["id"]][
        "revoked_at"
    ] is None


@pytest.mark.parametrize("scope", ["read", "submit", "transcripts"])
def test_without_admin_there_are_no_keys_to_see_or_make(client_of: NewClient, scope: str) -> None:
    client = client_of("team-a", scope)
    body = {"name": "mine", "scopes": ["admin"]}
    assert client.get("/v1/keys").status_code == 403
    assert client.post("/v1/keys", json=body).status_code == 403
    assert client.post("/v1/keys/0123456789abcdef/revoke").status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "", "scopes": ["read"]},
        {"name": "a\nb", "scopes": ["read"]},
        {"name": "x" * 101, "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "tenant": "team-b"},
    ],
)
def test_what_makes_no_key_is_refused(admin: httpx.Client, body: dict[str, object]) -> None:
    assert admin.post("/v1/keys", json=body).status_code == 422


@pytest.mark.parametrize("key_id", ["none", "0" * 16, "%00", "0" * 300])
def test_a_key_that_never_was_is_not_found(admin: httpx.Client, key_id: str) -> None:
    assert admin.post(f"/v1/keys/{key_id}/revoke").status_code == 404


def test_pages_of_keys_hold_each_once(client_of: NewClient) -> None:
    admin = client_of("team-c", "admin")
    names = [make(admin, f"key {i}", "read")["name"] for i in range(3)]
    seen, cursor = [], None
    while True:
        page = admin.get("/v1/keys", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        seen += [key["name"] for key in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert seen == [*reversed(names), "first"]
