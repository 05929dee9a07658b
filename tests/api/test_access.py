"""A service that others can reach: keys, tenants, scopes, limits."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.client import Client
from app.domain.access import parse_scopes
from app.storage.keys import SqlKeys
from tests.factory import World, make_world
from tests.service import Service, running
from tests.uploads import parts

PER_MINUTE = 40
NewKey = Callable[..., httpx.Client]
SCOPED = {
    "read": [("GET", "/v1/adapters"), ("GET", "/v1/jobs"), ("GET", "/v1/alignments"),
             ("GET", "/v1/verdicts"), ("GET", "/v1/verdicts/none"), ("GET", "/v1/policy")],
    "submit": [("POST", "/v1/adapters"), ("POST", "/v1/jobs"), ("POST", "/v1/patch"),
               ("POST", "/v1/alignments"), ("DELETE", "/v1/jobs/none"),
               ("POST", "/v1/verdicts/none/retry")],
    "transcripts": [("GET", "/v1/jobs/none/transcripts")],
    "admin": [("GET", "/v1/webhooks"), ("POST", "/v1/webhooks"), ("GET", "/v1/webhooks/none"),
              ("DELETE", "/v1/webhooks/none"), ("POST", "/v1/webhooks/none/rotate"),
              ("POST", "/v1/webhooks/none/enable"), ("GET", "/v1/webhooks/none/deliveries"),
              ("GET", "/v1/deliveries/none"), ("POST", "/v1/deliveries/none/redeliver"),
              ("GET", "/v1/keys"), ("POST", "/v1/keys"), ("POST", "/v1/keys/none/revoke")],
}  # fmt: skip
ROUTES = [route for routes in SCOPED.values() for route in routes]


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, model_root: Path, llama_world: World
) -> Iterator[Service]:
    """Room for one adapter a tenant, and only one of the models allowed by name."""
    size = sum(len(content) for _, content in parts(llama_world.adapter).values())
    with running(
        tmp_path_factory.mktemp("guarded"),
        model_root,
        ADAPTER_SAFETY_AUTH="keys",
        ADAPTER_SAFETY_REQUESTS_PER_MINUTE=str(PER_MINUTE),
        ADAPTER_SAFETY_MAX_STORED_BYTES=str(size + size // 2),
        ADAPTER_SAFETY_ALLOWED_MODELS="bas*, chat",
        ADAPTER_SAFETY_CORS_ORIGINS="https://page.example",
    ) as service:
        yield service


@pytest.fixture(scope="module")
def new_key(guarded: Service) -> Iterator[NewKey]:
    keys, clients = SqlKeys(f"sqlite:///{guarded.data}/records.sqlite3"), []

    def made(tenant: str, scope: str = "submit,read") -> httpx.Client:
        _, text = keys.create("test", tenant, parse_scopes(scope))
        headers = {"Authorization": f"Bearer {text}"}
        clients.append(httpx.Client(base_url=guarded.url, timeout=60, headers=headers))
        return clients[-1]

    yield made
    keys.close()
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def owner(new_key: NewKey) -> httpx.Client:
    return new_key("owner")


@pytest.fixture(scope="module")
def adapter(owner: httpx.Client, llama_world: World) -> str:
    answer = owner.post("/v1/adapters", files=parts(llama_world.adapter))
    assert answer.status_code == 201
    return answer.json()["id"]


@pytest.fixture(scope="module")
def job(owner: httpx.Client, adapter: str) -> str:
    body = {"adapter": adapter, "base_model": "base", "chat_model": "chat"}
    answer = owner.post("/v1/jobs", json=body, headers={"Prefer": "wait=60"})
    assert answer.json()["status"] == "succeeded"
    return answer.json()["id"]


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    said = answer.json()
    return (
        answer.status_code == said["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
        and said["type"] == f"urn:adapter-safety:problem:{code}"
    )


# --------------------------------------------------------------------------------------------- keys
@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "header", [None, "Bearer nothing", "Basic dTpw", "Bearer ask_0123456789abcdef_" + "A" * 43]
)
def test_without_a_live_key_nothing_is_told(
    guarded: Service, method: str, path: str, header: str | None
) -> None:
    headers = {"Authorization": header} if header else {}
    answer = httpx.request(method, guarded.url + path, headers=headers)
    assert is_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_what_probes_ask_for_needs_no_key(guarded: Service, path: str) -> None:
    assert httpx.get(guarded.url + path).status_code == 200


def test_every_route_of_the_api_needs_a_key(guarded: Service) -> None:
    document = httpx.get(f"{guarded.url}/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            free = not path.startswith("/v1/") or path.startswith(("/v1/schemas/", "/v1/hooks/"))
            assert free != bool(operation.get("security")), (method, path)
            if not free:
                path = path.replace("{", "").replace("}", "")
                answer = httpx.request(method, guarded.url + path)
                assert answer.status_code == 401, (method, path)


@pytest.mark.parametrize("scope", SCOPED)
def test_a_key_does_what_its_scope_says_and_no_more(new_key: NewKey, scope: str) -> None:
    client = new_key("scoped", scope)
    for needed, routes in SCOPED.items():
        for method, path in routes:
            answer = client.request(method, path)
            if scope in (needed, "admin"):
                assert answer.status_code not in (401, 403), (method, path)
            else:
                assert is_problem(answer, 403, "forbidden"), (method, path)
                assert needed in answer.json()["detail"]


def test_a_revoked_key_is_refused_at_once(guarded: Service, new_key: NewKey) -> None:
    client = new_key("revoked")
    assert client.get("/v1/jobs").status_code == 200
    key_id = client.headers["authorization"].split("_")[1]
    keys = SqlKeys(f"sqlite:///{guarded.data}/records.sqlite3")
    keys.revoke(key_id)
    keys.close()
    assert client.get("/v1/jobs").status_code == 401


def test_the_client_sends_its_key(guarded: Service, owner: httpx.Client, job: str) -> None:
    text = owner.headers["authorization"].removeprefix("Bearer ")
    with Client(guarded.url, api_key=text) as client:
        assert client.job(job)["id"] == job
        assert [event.name for event in client.events(job)][-1] == "succeeded"


# ------------------------------------------------------------------------------------------ tenants
@pytest.mark.parametrize("end", ["", "/events", "/report", "/adapter"])
def test_a_foreign_job_is_not_there(new_key: NewKey, job: str, end: str) -> None:
    stranger = new_key(f"stranger{end.replace('/', '-')}")
    foreign, none = (stranger.get(f"/v1/jobs/{name}{end}") for name in (job, "0" * 32))
    assert is_problem(foreign, 404, "job-not-found")
    assert foreign.json()["detail"].replace(job, "") == none.json()["detail"].replace("0" * 32, "")
    assert stranger.delete(f"/v1/jobs/{job}").status_code == 404


def test_a_foreign_adapter_is_not_there(new_key: NewKey, adapter: str) -> None:
    stranger = new_key("stranger")
    assert is_problem(stranger.get(f"/v1/adapters/{adapter}"), 404, "adapter-not-found")
    body = {"adapter": adapter, "base_model": "base", "chat_model": "chat"}
    assert is_problem(stranger.post("/v1/jobs", json=body), 404, "adapter-not-found")
    for path in ("/v1/adapters", "/v1/jobs"):
        assert stranger.get(path).json()["items"] == []


def test_a_foreign_webhook_is_not_there(new_key: NewKey) -> None:
    body = {"url": "https://hooks.example/", "events": ["job.failed"]}
    made = new_key("owner", "admin").post("/v1/webhooks", json=body).json()["links"]["self"]
    stranger = new_key("stranger", "admin")
    answers = [stranger.request(*each) for each in (("GET", made), ("DELETE", made),
               ("POST", f"{made}/rotate"), ("POST", f"{made}/enable"))]  # fmt: skip
    assert all(is_problem(answer, 404, "webhook-not-found") for answer in answers)
    assert stranger.get("/v1/webhooks").json()["items"] == []


def test_another_keys_of_the_same_tenant_see_the_same(new_key: NewKey, job: str) -> None:
    assert new_key("owner", "read").get(f"/v1/jobs/{job}/report").status_code == 200


def test_nobody_learns_that_another_tenant_has_the_same_adapter(
    new_key: NewKey, adapter: str, llama_world: World
) -> None:
    answer = new_key("same-content").post("/v1/adapters", files=parts(llama_world.adapter))
    assert (answer.status_code, answer.json()["id"]) == (201, adapter)


# ------------------------------------------------------------------------------------------- limits
def test_a_key_that_asks_too_often_is_told_when_to_come_again(new_key: NewKey) -> None:
    client, other = new_key("eager"), new_key("eager")
    answers = [client.get("/v1/jobs") for _ in range(PER_MINUTE + 1)]
    assert {answer.status_code for answer in answers[:-1]} == {200}
    assert is_problem(answers[-1], 429, "rate-limited")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert other.get("/v1/jobs").status_code == 200


def test_adapters_over_the_quota_are_refused(
    new_key: NewKey, llama_world: World, tmp_path: Path
) -> None:
    client = new_key("full")
    assert client.post("/v1/adapters", files=parts(llama_world.adapter)).status_code == 201
    more = make_world(tmp_path, "qwen2").adapter
    answer = client.post("/v1/adapters", files=parts(more))
    assert is_problem(answer, 429, "quota-exceeded")
    assert int(answer.headers["retry-after"]) > 0
    assert client.post("/v1/adapters", files=parts(llama_world.adapter)).status_code == 200


def test_a_model_that_is_not_allowed_is_named(owner: httpx.Client, adapter: str) -> None:
    body = {"adapter": adapter, "base_model": "base", "chat_model": "adapter"}
    answer = owner.post("/v1/jobs", json=body)
    assert is_problem(answer, 422, "model-not-allowed")
    assert (answer.json()["field"], answer.json()["model"]) == ("chat_model", "adapter")


# ------------------------------------------------------------------------------------------ headers
def test_a_site_that_is_named_may_use_the_api(guarded: Service) -> None:
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization"}  # fmt: skip
    answer = httpx.options(f"{guarded.url}/v1/jobs", headers=asked)
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    other = httpx.options(f"{guarded.url}/v1/jobs", headers={**asked, "Origin": "https://other"})
    assert "access-control-allow-origin" not in other.headers


def test_every_answer_has_the_headers_that_browsers_heed(http: httpx.Client) -> None:
    for path in ("/healthz", "/v1/jobs", "/v1/jobs/none", "/nowhere"):
        headers = http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers
    assert http.get("/v1/jobs").headers["cache-control"] == "private, no-store"
    assert "access-control-allow-origin" not in http.get("/v1/jobs").headers


@pytest.mark.parametrize("given", ["abc-123", "a" * 65, "two words", ""])
def test_an_answer_has_the_requests_id_or_one_of_its_own(http: httpx.Client, given: str) -> None:
    answer = http.get("/healthz", headers={"X-Request-ID": given})
    found = answer.headers["x-request-id"]
    assert (found == given) == (given == "abc-123")
    assert found.isascii()
    assert 0 < len(found) <= 64


# --------------------------------------------------------------------------------------- open doors
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]"]
)
def test_a_service_without_keys_answers_to_this_machines_names_alone(
    http: httpx.Client, host: str
) -> None:
    """A stranger's name may lead to this machine (DNS rebinding)."""
    assert is_problem(http.get("/v1/jobs", headers={"Host": host}), 403, "cross-site")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_service_without_keys_takes_no_forms_of_other_sites(
    http: httpx.Client, headers: dict[str, str]
) -> None:
    assert is_problem(http.post("/v1/jobs", json={}, headers=headers), 403, "cross-site")
    own = {"Origin": str(http.base_url).rstrip("/")}
    assert http.post("/v1/jobs", json={}, headers=own).status_code == 422


def test_a_wrong_key_is_refused_even_where_none_is_needed(http: httpx.Client) -> None:
    answer = http.get("/v1/jobs", headers={"Authorization": "Bearer wrong"})
    assert is_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize(("settings", "says"), [
    ({}, "there is no API key yet"),
    ({"ADAPTER_SAFETY_AUTH": "none"}, "only this machine reaches"),
])  # fmt: skip
def test_up_refuses_an_address_that_others_reach_without_keys(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    environment = {"ADAPTER_SAFETY_DATA_DIR": str(tmp_path / "data"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", "from app.cli import main; main()", "up", "--host", "0.0.0.0"]
    done = subprocess.run(
        [*command, "--port", "0"],
        env={**environment, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
