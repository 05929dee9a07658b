"""What is down, killed or late: nothing is lost, and nothing is done twice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import Unavailable
from app.domain.verdict import Verdict
from app.jobs.moderate import FEWEST, moderate
from app.jobs.verdict_ports import Posted
from tests.moderation.bench import ACTIONS, REPO, Bench

# because what the hub remarks about a model card without metadata is its author's to mend
pytestmark = pytest.mark.filterwarnings("ignore:Warnings while validating metadata")


class Killed(BaseException):
    """Ends a process where it stands: no handler of ours sees it."""


class DiesAfter:
    """A writer whose process is killed right after the hub has taken a write."""

    def __init__(self, writer: Any, method: str) -> None:
        self._writer, self._method = writer, method

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._writer, name)
        if name != self._method:
            return found

        def write(*given: Any) -> Posted:
            found(*given)
            raise Killed

        return write


class Away:
    """Records that do not answer."""

    def __init__(self, records: Any) -> None:
        self._records = records

    def of(self, _: str) -> Any:
        raise Unavailable(part="database")


def test_a_hub_that_is_down_for_a_while_costs_nothing(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.hub.faults.down.set()
    for _ in range(3):
        bench.step()
        bench.make_due()
    waiting = bench.verdict(verdict_id)
    assert (waiting.state, waiting.trouble) == ("importing", "hub does not answer; try again")
    assert waiting.attempts == 3
    bench.hub.faults.down.clear()
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.verdict, done.trouble) == ("patched", "")


def test_each_pause_is_longer_than_the_one_before(bench: Bench, adapter: Path) -> None:
    bench.told(bench.push(adapter))
    bench.hub.faults.down.set()
    assert bench.step() == 2  # taken up, and tried
    assert bench.step() == 0  # not due


def test_a_hub_that_goes_down_before_the_pull_request_gets_it_once(
    bench: Bench, adapter: Path
) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.step()
    assert bench.work()
    bench.hub.faults.down.set()
    bench.step()
    assert bench.verdict(verdict_id).state == "acting"
    bench.hub.faults.down.clear()
    bench.make_due()
    bench.settle()
    assert bench.verdict(verdict_id).state == "done"
    assert len(bench.hub.discussions(REPO)) == 1


@pytest.mark.parametrize(
    ("method", "review"), [("pull_request", []), ("discussion", ["discussion"])]
)
def test_a_process_killed_after_a_write_does_not_write_it_again(
    bench: Bench, adapter: Path, method: str, review: list[str]
) -> None:
    if review:
        bench.write_policy(thresholds={"max_projected_fraction": 0.5})
    verdict_id = bench.told(bench.push(adapter))
    killed = replace(bench.desk, writer=DiesAfter(bench.desk.writer, method))
    bench.step()
    bench.work()
    with pytest.raises(Killed):
        moderate(killed)
    assert len(bench.hub.discussions(REPO)) == 1
    assert bench.verdict(verdict_id).actions[0].state == "begun"
    bench.make_due()  # its lease has run out
    bench.settle()
    done = bench.verdict(verdict_id)
    (talk,) = bench.hub.discussions(REPO)
    assert (done.state, done.actions[0].state) == ("done", "done")
    assert (done.actions[0].number, done.thread) == (talk.number, talk.number)


def test_a_process_killed_after_a_comment_does_not_say_it_again(
    bench: Bench, adapter: Path
) -> None:
    actions = {**ACTIONS, "review": ["comment"]}
    bench.write_policy(actions=actions, thresholds={"max_projected_fraction": 0.5})
    bench.settled(adapter)
    verdict_id = bench.told(bench.push(adapter, readme="again"))
    killed = replace(bench.desk, writer=DiesAfter(bench.desk.writer, "comment"))
    bench.step()
    bench.work()
    with pytest.raises(Killed):
        moderate(killed)
    bench.make_due()
    bench.settle()
    (talk,) = bench.hub.discussions(REPO)
    assert len([each for each in talk.events if each["type"] == "comment"]) == 2
    assert bench.verdict(verdict_id).actions[0].state == "done"


def test_a_process_killed_after_its_job_was_submitted_submits_no_other(
    bench: Bench, adapter: Path
) -> None:
    class DiesAtGiveBack:
        def __init__(self, verdicts: Any) -> None:
            self._verdicts = verdicts

        def __getattr__(self, name: str) -> Any:
            return getattr(self._verdicts, name)

        def give_back(self, verdict: Verdict, **given: Any) -> Verdict:
            if verdict.state == "waiting":
                raise Killed
            kept: Verdict = self._verdicts.give_back(verdict, **given)
            return kept

    verdict_id = bench.told(bench.push(adapter))
    with pytest.raises(Killed):
        moderate(replace(bench.desk, verdicts=DiesAtGiveBack(bench.desk.verdicts)))
    bench.make_due()
    bench.settle()
    jobs = bench.services.records.jobs(status=None, kind=None, limit=10, cursor=None).items
    assert [job.id for job in jobs] == [bench.verdict(verdict_id).job]


def test_a_service_that_stops_begins_no_further_step(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.desk.stopping.set()
    assert bench.step() == 0
    assert bench.verdict(verdict_id).state == "received"


def test_a_token_that_may_not_write_fails_the_action_and_not_the_verdict(
    bench: Bench, adapter: Path
) -> None:
    bench.hub.faults.refuse(403, times=None, method="POST", path="*/commit/*")
    done = bench.settled(adapter)
    assert (done.verdict, done.actions[0].state) == ("patched", "failed")
    assert "opening a pull request in acme/adapter: the hub answers 403" in done.actions[0].note
    assert done.is_issued


def test_what_is_down_for_a_day_is_given_up_and_may_be_retried(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.hub.faults.down.set()
    for _ in range(FEWEST):
        bench.step()
        bench.make_due()
    assert bench.verdict(verdict_id).attempts == FEWEST
    bench.age()
    bench.step()
    given_up = bench.verdict(verdict_id)
    assert given_up.verdict == "inconclusive"
    assert given_up.why == "given up after a day: hub does not answer; try again"
    bench.hub.faults.down.clear()
    bench.make_due()
    bench.settle()
    assert bench.http.post(f"/v1/verdicts/{verdict_id}/retry").status_code == 202
    bench.settle()
    assert bench.verdict(verdict_id).verdict == "patched"


def test_a_job_that_takes_days_leaves_the_step_after_it_all_its_time(
    bench: Bench, adapter: Path
) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.step()
    assert bench.verdict(verdict_id).state == "waiting"
    bench.age()
    bench.work()
    away = replace(bench.desk, records=Away(bench.desk.records))
    for _ in range(FEWEST + 2):
        moderate(away)
        bench.make_due()
    assert bench.verdict(verdict_id).trouble == str(Unavailable(part="database"))
    bench.settle()
    assert bench.verdict(verdict_id).verdict == "patched"


def test_a_service_that_was_down_for_days_itself_tries_again(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.hub.faults.down.set()
    for _ in range(2):
        bench.step()
        bench.make_due()
    bench.age()
    bench.hub.faults.down.clear()
    bench.settle()
    assert bench.verdict(verdict_id).verdict == "patched"


def test_a_repository_that_is_gone_is_inconclusive(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.hub.delete(REPO)
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.verdict, done.fault and done.fault.code) == (
        "inconclusive",
        "repository-not-found",
    )
    assert done.actions[0].state == "failed"


def test_a_verdict_waits_for_its_job_without_being_looked_at(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.step()
    before = bench.verdict(verdict_id)
    assert bench.step() == 0
    assert bench.verdict(verdict_id) == before


def test_without_a_policy_in_force_a_verdict_waits(bench: Bench, adapter: Path) -> None:
    verdict_id = bench.told(bench.push(adapter))
    moderate(replace(bench.desk, policy=lambda: None))
    assert bench.verdict(verdict_id).trouble == str(Unavailable(part="policy"))
    bench.make_due()
    bench.settle()
    assert bench.verdict(verdict_id).verdict == "patched"


def test_a_repository_that_is_renamed_meanwhile_is_still_answered(
    bench: Bench, adapter: Path
) -> None:
    verdict_id = bench.told(bench.push(adapter))
    bench.step()
    bench.hub.rename(REPO, "acme/renamed")
    bench.settle()
    done = bench.verdict(verdict_id)
    assert (done.verdict, done.actions[0].state) == ("patched", "done"), done
    assert len(bench.hub.discussions("acme/renamed")) == 1
