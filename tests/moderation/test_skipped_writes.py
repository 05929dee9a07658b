"""What is written once, and what there is no more reason to write."""

from pathlib import Path
from typing import Any

import pytest

from app.domain.adapter import WEIGHTS_FILE
from tests.moderation.bench import REPO, Bench

# because what the hub remarks about a model card without metadata is its author's to mend
pytestmark = pytest.mark.filterwarnings("ignore:Warnings while validating metadata")


def states(bench: Bench, *verdicts: str) -> list[str]:
    """Of what each writes to the hub."""
    return [bench.verdict(each).actions[0].state for each in verdicts]


def deliveries(bench: Bench) -> int:
    (endpoint,) = bench.http.get("/v1/webhooks").json()["items"]
    return len(bench.http.get(f"/v1/webhooks/{endpoint['id']}/deliveries").json()["items"])


def listen(bench: Bench) -> None:
    asked = {"url": "https://hooks.example.com/x", "events": ["verdict.issued"]}
    assert bench.http.post("/v1/webhooks", json=asked).status_code == 201


def test_a_push_to_the_branch_makes_an_older_pull_request_moot(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.step()
    bench.work()
    newer = bench.push(adapter, readme="newer")  # the hub has not told us yet
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.state, done.verdict) == ("done", "patched")
    assert done.actions[0].state == "skipped"
    assert newer in done.actions[0].note
    assert bench.hub.discussions(REPO) == []


def test_a_newer_verdict_takes_the_place_of_an_older_ones_writes(
    bench: Bench, adapter: Path
) -> None:
    bench.write_policy(thresholds={"max_projected_fraction": 0.5})
    older = bench.told(bench.push(adapter))
    newer = bench.told(bench.push(adapter, readme="newer"))
    bench.settle()
    assert bench.verdict(older).actions[0].state == "skipped"
    assert "moved on to" in bench.verdict(older).actions[0].note
    assert bench.verdict(older).verdict == "review"
    assert bench.verdict(newer).actions[0].state == "done"
    assert len(bench.hub.discussions(REPO)) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dry_run": True}, "the policy is a dry run by now"),
        ({"repositories": {"include": ["other/*"]}}, "by now the policy does not take this"),
    ],
    ids=str,
)
def test_a_policy_that_takes_less_by_now_stops_what_is_under_way(
    bench: Bench, adapter: Path, changes: dict[str, Any], reason: str
) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.step()
    bench.work()
    bench.write_policy(**changes)
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.verdict, done.actions[0].state) == ("patched", "skipped")
    assert reason in done.actions[0].note
    assert bench.hub.discussions(REPO) == []


def test_a_push_that_the_policy_no_longer_takes_is_not_looked_at(
    bench: Bench, adapter: Path
) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.write_policy(repositories={"include": ["other/*"]})
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.verdict, done.adapter, done.actions) == ("inconclusive", None, ())
    assert bench.hub.discussions(REPO) == []


def test_a_commit_that_the_hub_itself_refuses_as_stale_is_not_tried_again(
    bench: Bench, adapter: Path
) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.hub.faults.refuse(412, times=None, method="POST", path="*/commit/*")
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.state, done.actions[0].state) == ("done", "skipped")
    assert "has moved away from" in done.actions[0].note


def test_two_webhooks_of_one_push_get_one_pull_request_and_one_event(
    bench: Bench, adapter: Path
) -> None:
    listen(bench)
    sha = bench.push(adapter)
    first = bench.told(sha)
    answer = bench.call(bench.payload(sha, hook="hook-2")).json()
    (taken,) = answer["taken"]
    assert (taken["verdict"], taken["new"]) == (first, False)
    assert bench.verdict(first).push.webhook == "hook-1"
    bench.settle()
    bench.told(sha, hook="hook-2")
    bench.settle()
    assert len(bench.hub.discussions(REPO)) == deliveries(bench) == 1


def test_an_older_push_that_is_told_late_does_not_silence_the_newer(
    bench: Bench, adapter: Path
) -> None:
    older, newer = bench.push(adapter), bench.push(adapter, readme="newer")
    told_first, told_late = bench.told(newer), bench.told(older)
    bench.settle()
    assert states(bench, told_first, told_late) == ["done", "skipped"]
    assert len(bench.hub.discussions(REPO)) == 1


def test_a_branch_that_goes_back_to_a_commit_gets_what_was_skipped(
    bench: Bench, adapter: Path
) -> None:
    first = bench.push(adapter)
    older = bench.told(first)
    newer = bench.told(bench.push(adapter, **{WEIGHTS_FILE: b"junk"}))
    bench.settle()
    assert states(bench, older, newer) == ["skipped", "done"]
    job = bench.verdict(older).job
    bench.hub.move_ref(REPO, "main", first)
    assert bench.told(first) == older
    bench.settle()
    again = bench.verdict(older)
    assert (again.state, again.verdict, again.job) == ("done", "patched", job)
    assert again.actions[0].state == "done"
    assert [talk.is_pull_request for talk in bench.hub.discussions(REPO)].count(True) == 1


def test_a_branch_that_goes_back_while_its_verdict_is_under_way_is_answered_too(
    bench: Bench, adapter: Path
) -> None:
    first = bench.push(adapter)
    older = bench.told(first)
    newer = bench.told(bench.push(adapter, readme="newer"))
    bench.hub.move_ref(REPO, "main", first)
    assert bench.told(first) == older
    bench.settle()
    assert states(bench, older, newer) == ["done", "skipped"]


def test_a_policy_that_becomes_a_dry_run_sends_no_event_of_what_is_under_way(
    bench: Bench, adapter: Path
) -> None:
    listen(bench)
    verdict_id = bench.told(bench.push(adapter))
    bench.step()
    bench.work()
    bench.write_policy(dry_run=True)
    bench.settle()
    done = bench.verdict(verdict_id)
    assert [each.state for each in done.actions] == ["skipped", "skipped"]
    assert deliveries(bench) == 0
    bench.write_policy()
    bench.told(done.push.sha)
    bench.settle()
    assert states(bench, verdict_id) == ["done"]
    assert deliveries(bench) == 1
