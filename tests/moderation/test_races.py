"""Several at once: each push is one verdict, and each verdict one process's."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.domain.verdict_errors import VerdictTaken
from app.jobs.moderate import moderate
from tests.moderation.bench import Bench

# because what the hub remarks about a model card without metadata is its author's to mend
pytestmark = pytest.mark.filterwarnings("ignore:Warnings while validating metadata")


def test_of_two_processes_one_has_a_verdict(bench: Bench, adapter: Path) -> None:
    bench.told(bench.push(adapter))
    first = bench.desk.verdicts.claim(lease_s=60)
    assert first is not None
    assert bench.desk.verdicts.claim(lease_s=60) is None
    bench.make_due()
    second = bench.desk.verdicts.claim(lease_s=60)
    assert second is not None
    with pytest.raises(VerdictTaken):
        bench.desk.verdicts.give_back(first)
    bench.desk.verdicts.give_back(second)


def test_a_push_that_comes_many_times_at_once_is_one_verdict(bench: Bench) -> None:
    payload = bench.payload("a" * 40)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: bench.call(payload), range(24)))
    taken = [answer.json()["taken"][0] for answer in answers]
    assert len({each["verdict"] for each in taken}) == 1
    assert sum(each["new"] for each in taken) == 1


def test_several_processes_at_once_answer_each_push_once(bench: Bench, adapter: Path) -> None:
    repos = [f"acme/adapter-{number}" for number in range(5)]
    made = [bench.told(bench.push(adapter, repo), repo=repo) for repo in repos]

    def process(_: int) -> None:
        while moderate(bench.desk):
            pass

    with ThreadPoolExecutor(3) as pool:
        for _ in range(2):
            list(pool.map(process, range(3)))
            bench.work()
        list(pool.map(process, range(3)))
    found = [bench.verdict(each) for each in made]
    assert [(each.state, each.trouble) for each in found] == [("done", "")] * len(made)
    assert [len(bench.hub.discussions(repo)) for repo in repos] == [1] * len(repos)
