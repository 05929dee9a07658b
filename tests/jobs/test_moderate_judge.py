"""Verdicts from reports: what nobody looked at never passes."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.evaluation import CHAT
from app.domain.method import Method, Selection
from app.domain.policy import Thresholds
from app.domain.report import IDENTITY, LayerReport, Report, Unscreened
from app.jobs.decide import decided
from app.jobs.moderate_judge import AFTER, BEFORE, judge
from tests.jobs.test_decide import report

ONE = Method(select=Selection("count", 1))
NONE = Method(select=Selection("threshold", -0.9))
KEPT = Unscreened("lm_head.weight", "bypasses LoRA", "kept")
DROPPED = Unscreened("lm_head.weight", "bypasses LoRA", "dropped")


def judged(found: Report, **thresholds: float) -> tuple[str, str]:
    judgement = judge(found.as_json(), Thresholds(**thresholds))
    return judgement.verdict, judgement.why


def of(cosines: list[float | None], method: Method, **changes: Any) -> Report:
    return decided(replace(report(cosines, method), **changes), method)


def identical(found: Report) -> Report:
    """As if the projector changed nothing at the first module."""
    first, *rest = found.layers
    note: LayerReport = replace(first, note=f"note: {IDENTITY}")
    return replace(found, layers=[note, *rest])


@pytest.mark.parametrize(
    ("found", "thresholds", "verdict", "said"),
    [
        (of([0.1, 0.2], NONE), {}, "pass", "all 2 modules were compared, and none was selected"),
        (of([0.1, 0.2], ONE), {}, "patched", "1 of 2 modules were projected"),
        (of([0.1, None], NONE), {}, "review", "1 of 2 modules were skipped"),
        (of([0.1, None], ONE), {}, "review", "1 of 2 modules were skipped"),
        (of([0.1], NONE, unscreened=[KEPT]), {}, "review", "1 parts bypass LoRA"),
        (of([0.1], ONE, unscreened=[KEPT]), {}, "review", "1 parts bypass LoRA"),
        (of([0.1], NONE, unscreened=[DROPPED]), {}, "patched", "1 parts that bypass LoRA were"),
        (of([0.1], ONE, unscreened=[DROPPED]), {}, "patched", "were dropped"),
        (identical(of([0.1, 0.2], NONE)), {}, "review", "the identity for 1 of 2"),
        (of([], NONE), {}, "review", "there is no module to compare"),
        (replace(of([0.1], NONE), verdict="review"), {}, "review", "own verdict is review"),
        (of([0.1, 0.2], ONE), {"max_projected_fraction": 0.5}, "patched", "1 of 2"),
        (of([0.1, 0.2], ONE), {"max_projected_fraction": 0.49}, "review", "50.0% of the modules"),
        (of([0.1, 0.2], ONE), {"min_median_retained_energy": 0.05}, "patched", "1 of 2"),
        (of([0.1, 0.2], ONE), {"min_median_retained_energy": 0.06}, "review", "leaves 0.05"),
        (of([0.1, 0.2], ONE), {"min_kept_pdst": 0.5}, "patched", "1 of 2"),
        (of([0.1, 0.2], ONE), {"min_kept_pdst": 0.51}, "review", "a pdst of 0.5"),
        (of([0.1, 0.2], NONE), {"min_kept_pdst": 0.51}, "review", "a pdst of 0.5"),
        (of([0.1, 0.2], NONE), {"min_median_retained_energy": 1.0}, "pass", "none was selected"),
    ],
)  # fmt: skip
def test_a_report_has_one_verdict_under_a_policys_thresholds(
    found: Report, thresholds: dict[str, float], verdict: str, said: str
) -> None:
    assert judged(found, **thresholds)[0] == verdict
    assert said in judged(found, **thresholds)[1]


def measured(one: str, other: str, role: str, verdict: str) -> dict[str, str]:
    return {"one": one, "other": other, "role": role, "verdict": verdict, "sentence": "30 % fewer"}


@pytest.mark.parametrize(
    ("found", "method", "verdict", "why"),
    [
        (measured(BEFORE, AFTER, "task", "worse"), ONE, "review", "the patch made it worse"),
        (measured(BEFORE, AFTER, "harmful", "worse"), ONE, "review", "the patch made it worse"),
        (measured(CHAT, AFTER, "harmful", "worse"), NONE, "review", "less safe than the chat"),
        (measured(CHAT, AFTER, "harmful", "worse"), ONE, "review", "less safe than the chat"),
        (measured(CHAT, AFTER, "task", "worse"), NONE, "pass", "none was selected"),
        (measured(CHAT, BEFORE, "harmful", "worse"), ONE, "patched", "were projected"),
        (measured(CHAT, AFTER, "harmful", "not told apart"), NONE, "pass", "none was selected"),
        (measured(BEFORE, AFTER, "harmful", "better"), ONE, "patched", "were projected"),
    ],
)
def test_what_a_gate_measured_decides_too(
    found: dict[str, str], method: Method, verdict: str, why: str
) -> None:
    judgement = judged(replace(of([0.1], method), evaluation={"comparisons": [found]}))
    assert judgement[0] == verdict
    assert why in judgement[1]


def test_the_names_of_a_gates_adapters_are_the_workers() -> None:
    from workers.measure import gate  # here, because it imports torch

    assert (gate.BEFORE, gate.AFTER) == (BEFORE, AFTER)


def test_all_doubts_are_told() -> None:
    found = of([0.1, None], ONE, unscreened=[KEPT])
    _, why = judged(found, max_projected_fraction=0.1)
    assert len(why.split("; ")) == 3
