"""From a push to a verdict and an answer on the hub, with the real client and a real worker."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.adapter import CONFIG_FILE, REPORT_FILE, WEIGHTS_FILE
from app.jobs.moderate_steps import import_push, take_up
from app.jobs.moderate_text import BEGIN, END, MAX_CARD_CHARS
from app.jobs.submit import OWN_KEYS
from app.storage.tables import webhook_deliveries
from tests.factory import World
from tests.moderation.bench import ACTIONS, ALL, NONE, REPO, Bench

# because what the hub remarks about a model card without metadata is its author's to mend
pytestmark = pytest.mark.filterwarnings("ignore:Warnings while validating metadata")

CARD = "---\nlicense: mit\n---\n# My adapter\n\nIt talks.\n"


def test_a_push_ends_in_a_pull_request_with_the_patched_adapter(
    bench: Bench, adapter: Path
) -> None:
    done = bench.settled(adapter, readme=CARD)
    assert (done.state, done.verdict) == ("done", "patched"), done
    action, webhook = done.actions
    assert (action.kind, action.state, webhook.state) == ("pull_request", "done", "done")
    (talk,) = bench.hub.discussions(REPO)
    assert (talk.number, talk.is_pull_request) == (action.number, True)
    assert action.url == f"{bench.hub.endpoint}/{REPO}/discussions/{talk.number}"
    assert bench.hub.read(REPO, "main", WEIGHTS_FILE) == (adapter / WEIGHTS_FILE).read_bytes()
    ref = talk.ref
    assert bench.hub.read(REPO, ref, WEIGHTS_FILE) != (adapter / WEIGHTS_FILE).read_bytes()
    assert bench.hub.read(REPO, ref, CONFIG_FILE)
    report = json.loads(bench.hub.read(REPO, ref, REPORT_FILE))
    assert report["verdict"] == "patched"
    card = bench.hub.read(REPO, ref, "README.md").decode()
    assert card.startswith(f"---\nlicense: mit\n---\n{BEGIN}\n## Safety patch\n")
    assert card.endswith(f"{END}\n# My adapter\n\nIt talks.\n")
    assert done.id in card


def test_the_verdict_keeps_what_decided(bench: Bench, adapter: Path) -> None:
    done = bench.settled(adapter)
    shown = bench.http.get(f"/v1/verdicts/{done.id}").json()
    assert shown["policy"]["pair"] == "org/{name}"
    assert shown["policy"]["rule"] == "acme/*"
    assert shown["policy"]["version"] == bench.http.get("/v1/policy").json()["version"]
    assert shown["policy"]["thresholds"]["max_projected_fraction"] == 1.0
    assert shown["base_model"] == {"id": "base", "revision": None}
    assert shown["chat_model"] == {"id": "chat", "revision": None}
    assert shown["base_model_name_or_path"] == "org/chat"
    assert shown["numbers"]["projected"] == shown["numbers"]["modules"] > 0
    assert shown["why"]
    assert shown["adapter"]
    assert bench.http.get(shown["links"]["report"]).status_code == 200


def test_who_asked_for_it_is_told_once_of_a_verdict(bench: Bench, adapter: Path) -> None:
    asked = {"url": "https://hooks.example.com/x", "events": ["verdict.issued"]}
    endpoint = bench.http.post("/v1/webhooks", json=asked).json()["id"]
    done = bench.settled(adapter)
    bench.told(done.push.sha)
    bench.settle()
    (delivery,) = bench.http.get(f"/v1/webhooks/{endpoint}/deliveries").json()["items"]
    assert delivery["event_type"] == "verdict.issued"
    with bench.engine() as engine, engine.connect() as connection:
        body = json.loads(connection.scalars(select(webhook_deliveries.c.body)).one())
    assert body["data"]["id"] == done.id
    assert body["data"]["verdict"] == "patched"
    assert body["data"]["actions"][0]["number"] == done.thread


def test_an_adapter_with_nothing_to_project_passes_and_nothing_is_written(
    bench: Bench, adapter: Path
) -> None:
    bench.write_policy(method=NONE)
    done = bench.settled(adapter)
    assert (done.verdict, done.state) == ("pass", "done")
    assert done.numbers["projected"] == 0
    assert bench.hub.discussions(REPO) == []


def test_a_patch_beyond_the_limits_is_for_review(bench: Bench, adapter: Path) -> None:
    bench.write_policy(thresholds={"max_projected_fraction": 0.5})
    done = bench.settled(adapter)
    assert done.verdict == "review"
    assert "100.0% of the modules were projected" in done.why
    (talk,) = bench.hub.discussions(REPO)
    assert not talk.is_pull_request
    assert done.thread == talk.number


def test_a_later_verdict_comments_where_an_earlier_one_opened_a_discussion(
    bench: Bench, adapter: Path
) -> None:
    actions = {**ACTIONS, "review": ["comment"]}
    bench.write_policy(actions=actions, thresholds={"max_projected_fraction": 0.5})
    first = bench.settled(adapter)
    second = bench.settled(adapter, readme="again")
    (talk,) = bench.hub.discussions(REPO)
    assert first.thread == second.thread == talk.number
    texts = [e["data"]["latest"]["raw"] for e in talk.events if e["type"] == "comment"]
    assert [first.id in texts[0], second.id in texts[1]] == [True, True]


def test_an_unknown_base_model_is_inconclusive_and_its_name_is_only_text(
    bench: Bench, stranger: Path
) -> None:
    done = bench.settled(stranger)
    assert (done.verdict, done.job) == ("inconclusive", None)
    assert "which no pair of the policy knows" in done.why
    (talk,) = bench.hub.discussions(REPO)
    text = talk.events[0]["data"]["latest"]["raw"]
    assert "@everyone" not in text
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "https://evil" not in text
    table = bench.http.get("/v1/verdicts", params={"format": "csv"}).text
    assert "'=evil/@everyone" in table


def test_a_gated_model_is_inconclusive_and_may_be_tried_again(
    bench: Bench, adapter: Path, llama_world: World
) -> None:
    bench.hub.create("org/chat", gated_to=())
    bench.hub.commit(
        "org/chat", {path.name: path.read_bytes() for path in llama_world.chat.iterdir()}
    )
    bench.write_policy(pairs=[{"match": "org/*", "base": "base", "chat": "org/chat"}])
    done = bench.settled(adapter)
    assert done.verdict == "inconclusive", done
    assert done.fault is not None
    assert done.fault.code == "repository-gated"
    bench.write_policy()
    answer = bench.http.post(f"/v1/verdicts/{done.id}/retry")
    assert answer.status_code == 202
    bench.settle()
    again = bench.verdict(done.id)
    assert (again.verdict, again.tries) == ("patched", 2)
    assert bench.http.post(f"/v1/verdicts/{done.id}/retry").status_code == 409


@pytest.mark.parametrize(
    ("name", "content", "verdict", "code"),
    [
        (CONFIG_FILE, b"{", "refused", "config-refused"),
        (WEIGHTS_FILE, b"junk", "refused", "malformed-safetensors"),
        (WEIGHTS_FILE, None, "refused", "missing-file"),
        (CONFIG_FILE, None, "inconclusive", "missing-file"),
    ],
)
def test_what_the_gate_refuses_is_refused(
    bench: Bench, adapter: Path, name: str, content: bytes | None, verdict: str, code: str
) -> None:
    bench.push(adapter)
    verdict_id = bench.told(bench.hub.commit(REPO, {name: content}))
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.verdict, done.fault and done.fault.code) == (verdict, code)
    assert done.job is None


def test_pickled_weights_are_refused(bench: Bench, adapter: Path) -> None:
    bench.push(adapter)
    sha = bench.hub.commit(REPO, {WEIGHTS_FILE: None, "adapter_model.bin": b"\x80\x04."})
    verdict_id = bench.told(sha)
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.verdict, done.fault and done.fault.code) == ("refused", "pickle-refused")


def test_a_dry_run_records_everything_and_writes_nothing(bench: Bench, adapter: Path) -> None:
    bench.write_policy(dry_run=True)
    done = bench.settled(adapter)
    assert (done.verdict, done.state, done.is_dry_run) == ("patched", "done", True)
    assert [each.state for each in done.actions] == ["would", "would"]
    assert done.actions[0].note.startswith("would open a pull request: Safety patch")
    assert done.job
    assert not done.is_issued
    assert bench.hub.discussions(REPO) == []


def test_a_merged_pull_request_is_not_patched_again(bench: Bench, adapter: Path) -> None:
    first = bench.settled(adapter)
    (talk,) = bench.hub.discussions(REPO)
    merged = {
        name: bench.hub.read(REPO, talk.ref, name) for name in bench.hub.files(REPO, talk.ref)
    }
    verdict_id = bench.told(bench.hub.commit(REPO, merged))
    bench.settle()
    second = bench.verdict(verdict_id)
    assert second.verdict == "patched"
    assert first.id in second.why
    assert [each.kind for each in second.actions] == ["webhook"]
    assert len(bench.hub.discussions(REPO)) == 1


def merged(bench: Bench, **others: bytes) -> str:
    """The verdict on the commit that has merged the one pull request."""
    (talk,) = (talk for talk in bench.hub.discussions(REPO) if talk.is_pull_request)
    names = bench.hub.files(REPO, talk.ref)
    files = {name: bench.hub.read(REPO, talk.ref, name) for name in names}
    verdict_id = bench.told(bench.hub.commit(REPO, {**files, **others}))
    bench.settle()
    return verdict_id


def test_a_merged_pull_request_is_judged_by_the_thresholds_of_today(
    bench: Bench, adapter: Path
) -> None:
    first = bench.settled(adapter)
    bench.write_policy(thresholds={"max_projected_fraction": 0.5})
    second = bench.verdict(merged(bench))
    assert second.verdict == "review"
    assert first.id in second.why
    assert "100.0% of the modules were projected" in second.why


@pytest.mark.parametrize("method", [NONE, ALL], ids=["nothing projected", "all projected"])
def test_a_commit_with_files_that_nobody_looked_at_is_for_review(
    bench: Bench, adapter: Path, method: dict[str, Any]
) -> None:
    bench.write_policy(method=method)
    others = {
        "checkpoint-1/adapter_model.safetensors": b"junk",
        "adapter_model.bin": b"\x80\x04.",
        "@all|`x`.py": b"import os",
    }
    done = bench.settled(adapter, **others)
    assert (done.verdict, done.numbers["unread"]) == ("review", 3)
    assert "3 other files of the commit were not looked at (@all|`x`.py, ad" in done.why
    (talk,) = bench.hub.discussions(REPO)
    text = talk.events[0]["data"]["latest"]["raw"]
    assert "@all" not in text
    assert "| other files of the commit, not looked at | 3 |" in text


def test_a_merge_that_brings_other_files_is_for_review(bench: Bench, adapter: Path) -> None:
    bench.settled(adapter)
    second = bench.verdict(merged(bench, **{"handler.py": b"import os"}))
    assert (second.verdict, second.numbers["unread"]) == ("review", 1)
    assert "(handler.py)" in second.why


def test_a_client_that_guesses_a_verdicts_key_changes_nothing(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    desk = bench.desk
    for step in (take_up, import_push):
        claimed = desk.verdicts.claim(lease_s=60)
        assert claimed is not None
        desk.verdicts.give_back(step(claimed, desk))
    body = {"adapter": bench.verdict(verdict_id).adapter, "base_model": "base"}
    body |= {"chat_model": "chat", "method": NONE}
    for prefix, status in (("", 202), (OWN_KEYS, 422)):
        key = {"Idempotency-Key": f"{prefix}verdict-{verdict_id}-1"}
        assert bench.http.post("/v1/jobs", json=body, headers=key).status_code == status
    bench.settle()
    assert bench.verdict(verdict_id).verdict == "patched"


def test_a_model_card_with_our_section_gets_one_new_section(bench: Bench, adapter: Path) -> None:
    old = f"---\nlicense: mit\n---\n{BEGIN}\nold\n{END}\n# Mine\n{BEGIN}\nforged"
    bench.settled(adapter, readme=old)
    (talk,) = bench.hub.discussions(REPO)
    card = bench.hub.read(REPO, talk.ref, "README.md").decode()
    assert (card.count(BEGIN), card.count(END)) == (1, 1)
    assert "old\n" not in card
    assert card.endswith("# Mine\n\nforged")


def test_a_model_card_that_is_too_long_stays_as_it_is(bench: Bench, adapter: Path) -> None:
    card = CARD + "x" * MAX_CARD_CHARS
    done = bench.settled(adapter, readme=card)
    assert done.actions[0].state == "done"
    (talk,) = bench.hub.discussions(REPO)
    assert bench.hub.read(REPO, talk.ref, "README.md").decode() == card
