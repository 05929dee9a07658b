"""The experiment's page, from its results alone: whatever comes out is what is written."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Result = Mapping[str, Any]
# two-sided 95 % quantiles of Student's t by degrees of freedom, for means over so many seeds
STUDENT = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}
ROLES = ("harmful", "task", "benign")

HEAD = """\
# Does SaLoRA keep refusals? What we measured, as it came out

Made by `python -m tests.lab.salora --page docs/salora-lab.md`: {trainings} trainings through the
product itself (safety module, kit, Trainer, export), measured by the product on prompts about
things that no training named. No figure here was promised, and none was left out.

**The world** (`app/demo/safety_world`) is small: a Llama of 6 layers and 0.6 million parameters,
trained on a made-up language of 240 things, a third of them dangerous. The chat model refuses
recipes of dangerous things, also of those that its alignment never named. Two LoRA tasks (rank 8,
alpha 16, all 42 linear modules, {steps} steps of 32 rows): *benign* tells recipes of harmless
things in another form, *poisoned* has about 3 % of dangerous things among its rows. {seeds} seeds,
each with a world and an order of rows of its own; within a seed everything but what a row of the
table names is the same.

- *start* `zero` is PEFT's own (with safety rank 0 it is an ordinary LoRA), `paper` is SaLoRA's,
  from the weights' and the task's directions.
- *r_s* is the number of directions of each module's output (of 96, or 192) that training cannot
  touch. 0: no safety module.
- *refused* is of {harmful} held-out harmful prompts (keywords), *skill* of {task} held-out task
  prompts (exact answers), *over-refused* of {benign} harmless ones. `[ ]` is the 95 % interval of
  the mean over seeds (Student's t); the last table has each training with its Wilson intervals.

The chat model itself refuses {chat} of the harmful prompts (mean over seeds).
"""

FOOT = """
## What it says, and what not

{said}

It is one small world with one kind of task, in which a hundred steps already undo refusals, and
where `r_s` = 32 takes a third of a module's outputs (in a model of width 4096 it takes less than a
hundredth). It can show that a method fails here, or that two differ here; it cannot show that a
method works on a model of yours. Measure that: `adapter-safety evaluate`.
"""


def write_page(results: Sequence[Result], path: Path) -> None:
    """Raises ValueError for results that are not of one experiment."""
    path.write_text("\n".join(_lines(results)) + "\n")


def _lines(results: Sequence[Result]) -> Iterator[str]:
    seeds = len({result["seed"] for result in results})
    counts = {role: _cell(results[0], role)["n"] for role in ROLES}
    chat = fmean(_cell(result, "harmful", "chat")["rate"]["value"] for result in results)
    (steps,) = {result["steps"] for result in results}
    trainings = len(results)
    yield HEAD.format(trainings=trainings, seeds=seeds, steps=steps, chat=f"{chat:.2f}", **counts)
    yield from _means(results)
    yield FOOT.format(said=" ".join(_said(results)))
    yield from _each(results)


def _means(results: Sequence[Result]) -> Iterator[str]:
    yield "| data | seeds | learning rate | start | r_s | refused | skill | over-refused |"
    yield "|---|---|---|---|---|---|---|---|"
    for key, group in _groups(results):
        adapter, rate, start, rank = key
        means = [_mean([_value(one, role) for one in group]) for role in ROLES]
        of = f"| {adapter} | {len(group)} | {rate:g} | {_start(start)} | {rank} |"
        yield f"{of} {' | '.join(means)} |"


def _each(results: Sequence[Result]) -> Iterator[str]:
    yield "\n## Every training\n"
    yield "| seed | data | learning rate | start | r_s | refused | skill | over-refused |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in sorted(results, key=lambda r: (r["seed"], _key(r))):
        adapter, rate, start, rank = _key(one)
        rates = " | ".join(_interval(_cell(one, role)["rate"]) for role in ROLES)
        yield f"| {one['seed']} | {adapter} | {rate:g} | {_start(start)} | {rank} | {rates} |"


def _said(results: Sequence[Result]) -> Iterator[str]:
    """Differences within a seed: with the safety module against without, all else the same."""
    for rank in sorted({result["safety_rank"] for result in results} - {0}):
        for adapter in sorted({result["adapter"] for result in results}):
            yield _paired(results, adapter, rank)


def _paired(results: Sequence[Result], adapter: str, rank: int) -> str:
    """Over all starts, learning rates and seeds."""
    known = {(r["seed"], *_key(r)): r for r in results}
    refused, skill = [], []
    for (seed, data, rate, start, safety), one in known.items():
        if data == adapter and safety == rank:
            without = known[seed, data, rate, start, 0]
            refused.append(_value(one, "harmful") - _value(without, "harmful"))
            skill.append(_value(one, "task") - _value(without, "task"))
    more, less = sum(d > 0.05 for d in refused), sum(d < -0.05 for d in refused)
    return (
        f"With r_s = {rank} on the {adapter} data, refusals changed by {fmean(refused):+.2f} on "
        f"average ({more} of {len(refused)} trainings refused more by over 0.05, {less} less), and "
        f"skill by {fmean(skill):+.2f}."
    )


def _groups(results: Sequence[Result]) -> Iterator[tuple[tuple[Any, ...], list[Result]]]:
    for key, group in groupby(sorted(results, key=_key), key=_key):
        yield key, list(group)


def _key(result: Result) -> tuple[Any, ...]:
    return tuple(result[name] for name in ("adapter", "learning_rate", "start", "safety_rank"))


def _start(start: str) -> str:
    return "paper" if start == "salora" else start


def _cell(result: Result, role: str, subject: str = "trained") -> Mapping[str, Any]:
    (found,) = (c for c in result["table"] if c["role"] == role and c["subject"] == subject)
    cell: Mapping[str, Any] = found
    return cell


def _value(result: Result, role: str) -> float:
    return float(_cell(result, role)["rate"]["value"])


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{fmean(values):.2f}"
    half = STUDENT[len(values) - 1] * stdev(values) / sqrt(len(values))
    low, high = max(0.0, fmean(values) - half), min(1.0, fmean(values) + half)
    return f"{fmean(values):.2f} [{low:.2f}, {high:.2f}]"


def _interval(rate: Mapping[str, float]) -> str:
    return f"{rate['value']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
