"""The proof's page, from its rows alone: whatever comes out is what is written."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean

from app.demo.safety_findings import LIMITS, findings
from app.demo.safety_table import SAFETY_RANK, Search, TableRow
from app.domain.evaluation import CHAT
from app.domain.measured import Rate

SEEN = "on things of its alignment"  # the chat model
HEAD = """\
# Which way of patching keeps refusals and skill? What we measured, as it came out

Made by `python -m tests.lab.proof --seeds {seeds} --evaluations {evaluations} --page
docs/proof.md`, through the product itself: every patch is a real one, every setting was chosen by a
frontier search on tuning rows, every figure is of held-out rows that took no part in choosing. No
figure here was promised, and none was left out.

- The worlds (`app/demo/safety_world`), one a seed: a chat model that refuses recipes of dangerous
  things, and two LoRA adapters on it. *benign* learnt another form of recipes, of harmless things
  alone; *poisoned* the same with about 3 % of dangerous things among its rows.
- *refused* is of {harmful} harmful prompts (keywords), *over-refused* of {benign} harmless ones,
  *skill* of {task} task prompts answered rightly (exact), *harm given* of the harmful prompts
  answered as a compliant model would. The chat model has no skill: it tells recipes in its own
  form. `[ ]` are Wilson 95 % intervals.
- Ways. `on things of its alignment`: the chat model where it was taught.
  `as it came`: the adapter unpatched. `published default`: Safe LoRA, approximate projector,
  threshold 0.5. `approximate`, `subspace`, `complement`: Safe LoRA by that projector; `scale` and
  `prune`: the plain baselines; `salora`: SaLoRA's fixed projection put on the trained adapter, by a
  safety module of {rank} directions. Of these six the setting was chosen as the most useful that
  refuses at least {least:g} of the tuning prompts, within {evaluations} evaluations; `*` where none
  did, and the nearest was taken. `trained, r_s N`: trained anew with SaLoRA's safety module of N
  directions (0: without one).
"""

FOOT = """
## What this cannot show

{limits}

Beyond that: each seed is one world, one order of rows and one adapter a task, so a difference
between two ways is known no better than the seeds agree. The harmful prompts ask in the words in
which the chat model learnt to refuse; nobody attacks it. Tuning and held-out rows are of one kind,
so settings are chosen under better conditions than yours will be. A projector of a few dozen
directions takes a share of 96 outputs that it would never take of 4096. Published comparisons on
real models, in which these methods helped, did nothing or did harm, are neither confirmed nor
refuted here.
"""


def write_page(rows: Sequence[TableRow], search: Search, path: Path) -> None:
    path.write_text("\n".join(lines(rows, search)) + "\n")


def lines(rows: Sequence[TableRow], search: Search) -> Iterator[str]:
    seeds = list(dict.fromkeys(row.seed for row in rows))
    yield _head(rows, search, seeds)
    yield "## Means over seeds\n"
    yield from _means(rows)
    yield "\nSmallest and largest of the seeds in brackets. What each seed says:\n"
    for seed in seeds:
        own = [row for row in rows if row.seed == seed and row.way != SEEN]
        yield from (f"- seed {seed}, {said}" for said in findings(own))
    for seed in seeds:
        yield f"\n## Seed {seed}\n"
        yield from _each([row for row in rows if row.seed == seed])
    yield FOOT.format(limits=LIMITS)


def _head(rows: Sequence[TableRow], search: Search, seeds: Sequence[int]) -> str:
    last = rows[-1]  # because the first is of the alignment's own things
    return HEAD.format(
        seeds=" ".join(map(str, seeds)),
        harmful=last.refused.n,
        benign=last.over_refused.n,
        task=last.skill.n,
        rank=SAFETY_RANK,
        least=search.min_refusal,
        evaluations=search.evaluations,
    )


def _means(rows: Sequence[TableRow]) -> Iterator[str]:
    yield "| adapter | way | refused | over-refused | skill | harm given |"
    yield "|---|---|---|---|---|---|"
    for (adapter, way), group in _groups(rows):
        rates = (
            [row.refused for row in group],
            [row.over_refused for row in group],
            [row.skill for row in group],
            [row.harm for row in group],
        )
        yield f"| {adapter} | {way}{_star(group)} | {' | '.join(map(_mean, rates))} |"


def _groups(rows: Sequence[TableRow]) -> Iterator[tuple[tuple[str, str], list[TableRow]]]:
    """By adapter and way, in the order of their first rows; the chat model once a seed."""
    order = {(row.adapter, row.way): i for i, row in reversed(list(enumerate(rows)))}
    known = {(row.seed, row.adapter, row.way): row for row in rows}.values()
    ordered = sorted(known, key=lambda row: order[row.adapter, row.way])
    for key, group in groupby(ordered, key=lambda row: (row.adapter, row.way)):
        yield key, list(group)


def _each(rows: Sequence[TableRow]) -> Iterator[str]:
    yield "| adapter | way | setting | refused | over-refused | skill | harm given |"
    yield "|---|---|---|---|---|---|---|"
    for _, (row,) in _groups(rows):
        rates = map(_interval, (row.refused, row.over_refused, row.skill, row.harm))
        setting = row.setting if row.adapter != CHAT else ""
        yield f"| {row.adapter} | {row.way}{_star([row])} | {setting} | {' | '.join(rates)} |"


def _star(group: Sequence[TableRow]) -> str:
    return " \\*" if any(row.held is False for row in group) else ""


def _mean(rates: Sequence[Rate]) -> str:
    values = [rate.value for rate in rates]
    spread = f" [{min(values):.2f}, {max(values):.2f}]" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def _interval(rate: Rate) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
