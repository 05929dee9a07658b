"""The webhook's door: who may knock, what is taken, and what is not."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hub.server import LocalHub
from tests.moderation.bench import SECRET, Bench

SHA, OTHER = "a" * 40, "b" * 40


def verdicts(bench: Bench) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bench.http.get("/v1/verdicts").json()["items"]
    return found


def test_a_push_is_written_down_and_answered_at_once(bench: Bench) -> None:
    began = time.monotonic()
    answer = bench.call(bench.payload(SHA))
    assert time.monotonic() - began < 2
    assert answer.status_code == 202
    (taken,) = answer.json()["taken"]
    assert (taken["sha"], taken["ref"], taken["new"]) == (SHA, "refs/heads/main", True)
    shown = bench.http.get(taken["links"]["verdict"]).json()
    assert (shown["state"], shown["verdict"], shown["sha"]) == ("received", None, SHA)


def test_a_replayed_push_is_the_same_verdict(bench: Bench) -> None:
    first = bench.call(bench.payload(SHA)).json()["taken"][0]
    again = bench.call(bench.payload(SHA)).json()["taken"][0]
    assert (again["verdict"], again["new"]) == (first["verdict"], False)
    assert len(verdicts(bench)) == 1


@pytest.mark.parametrize(
    ("changes", "is_new"),
    [({"hook": "hook-2"}, False), ({"repo": "acme/two"}, True), ({"sha": OTHER}, True)],
    ids=str,
)
def test_another_repository_or_commit_is_another_verdict_and_another_webhook_is_not(
    bench: Bench, changes: dict[str, Any], is_new: bool
) -> None:
    bench.call(bench.payload(SHA))
    answer = bench.call(bench.payload(**{"sha": SHA, **changes})).json()
    assert answer["taken"][0]["new"] == is_new
    assert len(verdicts(bench)) == 1 + is_new


def test_each_updated_ref_of_a_payload_has_a_verdict_of_its_own(bench: Bench) -> None:
    bench.write_policy(repositories={"include": ["acme/*"], "branches": ["main", "v*"]})
    payload = bench.payload(SHA)
    payload["updatedRefs"] += [
        {"ref": "refs/heads/v2", "oldSha": None, "newSha": OTHER},
        {"ref": "refs/tags/t", "oldSha": None, "newSha": OTHER},
    ]
    out = bench.call(payload).json()
    assert [each["sha"] for each in out["taken"]] == [SHA, OTHER]
    (ignored,) = out["ignored"]
    assert ignored == {"ref": "refs/tags/t", "reason": "only branches are looked at"}


def test_without_a_secret_the_answer_is_401_and_with_a_wrong_one_403(bench: Bench) -> None:
    for secret, status, kind in (
        (None, 401, "hook-secret-missing"),
        ("wrong", 403, "hook-secret-wrong"),
        ("", 403, "hook-secret-wrong"),
        (SECRET[:-1], 403, "hook-secret-wrong"),
        (f"older, {SECRET}", 403, "hook-secret-wrong"),
    ):
        answer = bench.call(bench.payload(SHA), secret)
        assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (status, kind)
        assert SECRET not in answer.text
    assert verdicts(bench) == []


def test_the_secret_is_looked_at_before_the_body(bench: Bench) -> None:
    answer = bench.http.post("/v1/hooks/huggingface", content=b"{")
    assert answer.status_code == 401


def test_one_of_several_secrets_will_do(bench: Bench) -> None:
    assert bench.call(bench.payload(SHA), "older").status_code == 202


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha": None}, "the ref was deleted"),
        ({"ref": "refs/pr/3"}, "only branches are looked at"),
        ({"ref": "refs/tags/v1"}, "only branches are looked at"),
        ({"ref": "refs/heads/dev"}, "the policy does not take this branch"),
        ({"repo": "other/adapter"}, "the policy does not take this repository"),
        ({"repo": "acme/private-one"}, "the policy does not take this repository"),
        ({"type": "dataset"}, "a dataset is no model"),
        ({"scope": "discussion"}, "the scope discussion changes no files"),
        ({"scope": "discussion.comment"}, "the scope discussion.comment changes no files"),
        ({"scope": "repo.config"}, "the scope repo.config changes no files"),
        ({"scope": "repo.contents"}, "the scope repo.contents changes no files"),
    ],
    ids=str,
)
def test_what_is_not_to_be_looked_at_is_ignored_with_the_reason(
    bench: Bench, changes: dict[str, Any], reason: str
) -> None:
    given = {"sha": SHA, **changes}
    answer = bench.call(bench.payload(**given))
    assert answer.status_code == 202
    assert answer.json()["taken"] == []
    assert [each["reason"] for each in answer.json()["ignored"]] == [reason]
    assert verdicts(bench) == []


def test_a_narrower_scope_that_is_new_is_read_as_its_parent(bench: Bench) -> None:
    assert bench.call(bench.payload(SHA, scope="repo.content.foo")).json()["taken"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("event", None),
        ("repo.name", "not a name\x00"),
        ("repo.name", "acme/../../etc"),
        ("repo.name", "a/b/c"),
        ("repo.id", 3),
        ("webhook.version", 2),
        ("webhook.id", ""),
        ("updatedRefs.0.newSha", "abc"),
        ("updatedRefs.0.newSha", "A" * 40),
        ("updatedRefs.0.ref", "main"),
        ("updatedRefs", {}),
        ("event.scope", "Repo Content"),
    ],
    ids=str,
)
def test_a_malformed_payload_is_refused_with_the_field(
    bench: Bench, place: str, value: object
) -> None:
    payload = bench.payload(SHA)
    *path, last = place.split(".")
    part: Any = payload
    for name in path:
        part = part[int(name)] if name.isdigit() else part[name]
    part[last] = value
    answer = bench.call(payload)
    assert answer.status_code == 422
    assert answer.json()["field"] == place
    assert verdicts(bench) == []


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 2000, b"null", b""])
def test_what_is_no_payload_is_a_problem(bench: Bench, content: bytes) -> None:
    headers = {"X-Webhook-Secret": SECRET, "Content-Type": "application/json"}
    answer = bench.http.post("/v1/hooks/huggingface", content=content, headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_over_the_limit_is_refused(bench: Bench) -> None:
    payload = {**bench.payload(SHA), "padding": "x" * 300_000}
    assert bench.call(payload).status_code == 413


def test_a_policy_that_breaks_leaves_the_one_before_in_force(bench: Bench, tmp_path: Path) -> None:
    before = bench.http.get("/v1/policy").json()
    assert before["problem"] is None
    (tmp_path / "policy.yaml").write_text("version: 2")
    after = bench.http.get("/v1/policy").json()
    assert after["version"] == before["version"]
    assert after["problem"]["field"] == "version"
    assert bench.call(bench.payload(SHA)).status_code == 202
    bench.write_policy(dry_run=True)
    again = bench.http.get("/v1/policy").json()
    assert (again["problem"], again["dry_run"]) == (None, True)
    assert again["version"] != before["version"]


def test_what_the_hub_itself_sends_is_taken(bench: Bench, local_hub: LocalHub) -> None:
    """The test hub's payload, as its own code makes it."""
    local_hub.webhooks.add("http://127.0.0.1:9/nowhere", SECRET, name="its-own")
    local_hub.create("acme/from-the-hub")
    sha = local_hub.commit("acme/from-the-hub", {"a": b"b"})
    last = local_hub.webhooks.wait()[-1]
    taken = bench.call(json.loads(json.dumps(last.payload))).json()["taken"]
    assert [each["sha"] for each in taken] == [sha]
