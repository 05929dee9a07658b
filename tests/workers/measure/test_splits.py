"""Rows that settings are chosen by, and rows that they are judged on: never the same."""

from collections.abc import Sequence

import pytest

from app.domain.evaluation import SetRole
from app.domain.measure_errors import SetsOverlap, SetTooSmall
from workers.measure.prompts import Prompt, PromptSet
from workers.measure.splits import split


def made(role: SetRole, *ids: Sequence[int]) -> PromptSet:
    return PromptSet(role, [Prompt(line, list(i), "", None, None) for line, i in enumerate(ids, 1)])


def lines(prompts: PromptSet) -> list[int]:
    return [prompt.line for prompt in prompts.prompts]


MANY = made("harmful", *[[i % 40] for i in range(100)])  # 40 prompts, some of them three times


@pytest.mark.parametrize("seed", range(5))
def test_the_same_prompt_is_never_on_both_sides(seed: int) -> None:
    halves = split({"harmful": MANY}, {}, seed)
    one, other = halves.tuning["harmful"], halves.held_out["harmful"]
    assert not {tuple(p.ids) for p in one.prompts} & {tuple(p.ids) for p in other.prompts}
    assert sorted([*lines(one), *lines(other)]) == list(range(1, 101))
    assert len({tuple(p.ids) for p in one.prompts}) == 20
    assert (one.role, other.role) == ("harmful", "harmful")


def test_rows_keep_their_order() -> None:
    halves = split({"harmful": MANY}, {}, 1)
    for half in (halves.tuning["harmful"], halves.held_out["harmful"]):
        assert lines(half) == sorted(lines(half))


def test_the_same_seed_gives_the_same_halves_and_another_seed_others() -> None:
    one, again, other = (lines(split({"task": MANY}, {}, s).tuning["task"]) for s in (1, 1, 2))
    assert one == again
    assert one != other


def test_each_role_is_halved_by_itself() -> None:
    halves = split({"harmful": MANY, "task": made("task", [1], [2], [3])}, {}, 0)
    assert (len(halves.tuning["task"].prompts), len(halves.held_out["task"].prompts)) == (1, 2)


def test_held_out_sets_that_are_given_are_taken_whole() -> None:
    sets, held_out = {"task": made("task", [1], [2])}, {"task": made("task", [3])}
    halves = split(sets, held_out, 0)
    assert (halves.tuning, halves.held_out) == (sets, held_out)


def test_a_held_out_prompt_that_is_a_tuning_prompt_is_refused_with_its_line() -> None:
    sets, held_out = {"task": made("task", [1], [2])}, {"task": made("task", [3], [2], [1])}
    with pytest.raises(SetsOverlap, match=r"task: 2 held-out prompts .*line 2 of the held-out"):
        split(sets, held_out, 0)


@pytest.mark.parametrize("ids", [([1],), ([1], [1], [1])], ids=["one row", "one prompt thrice"])
def test_a_set_without_two_prompts_cannot_be_split(ids: Sequence[Sequence[int]]) -> None:
    with pytest.raises(SetTooSmall, match=rf"benign: {len(ids)} rows"):
        split({"benign": made("benign", *ids)}, {}, 0)
