"""Tuning and held-out rows: a setting is never judged on what it was chosen by."""

import random
from dataclasses import dataclass, replace

from app.domain.evaluation import SetRole
from app.domain.measure_errors import SetsOverlap, SetTooSmall
from workers.measure.prompts import PromptSet
from workers.measure.session import Sets


@dataclass(frozen=True)
class Splits:
    tuning: Sets
    held_out: Sets


def split(sets: Sets, held_out: Sets, seed: int) -> Splits:
    """The given held-out sets, or else halves of the rows, drawn by the seed.

    Raises SetsOverlap, SetTooSmall.
    """
    if held_out:
        for role, prompts in held_out.items():
            _check_apart(role, sets[role], prompts)
        return Splits(sets, held_out)
    halves = {role: _halves(prompts, seed) for role, prompts in sets.items()}
    return Splits(*({role: both[i] for role, both in halves.items()} for i in (0, 1)))


def _halves(prompts: PromptSet, seed: int) -> tuple[PromptSet, PromptSet]:
    """Rows of the same prompt stay together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, prompt in enumerate(prompts.prompts):
        groups.setdefault(tuple(prompt.ids), []).append(i)
    if len(groups) < 2:
        raise SetTooSmall(role=prompts.role, rows=len(prompts.prompts))
    order = list(groups.values())
    random.Random(seed).shuffle(order)  # noqa: S311 because a seed must give it again
    first = {i for group in order[: len(order) // 2] for i in group}
    rows = list(enumerate(prompts.prompts))
    halves = ([p for i, p in rows if (i in first) is half] for half in (True, False))
    one, other = (replace(prompts, prompts=half) for half in halves)
    return one, other


def _check_apart(role: SetRole, tuning: PromptSet, held_out: PromptSet) -> None:
    known = {tuple(prompt.ids) for prompt in tuning.prompts}
    both = [prompt for prompt in held_out.prompts if tuple(prompt.ids) in known]
    if both:
        raise SetsOverlap(role=role, rows=len(both), line=both[0].line)
