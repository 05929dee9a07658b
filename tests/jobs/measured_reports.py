"""Made-up reports of evaluations and frontiers, full enough to look at.

`python -m tests.jobs.measured_reports FOLDER` writes them there in every form.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from app.domain.evaluation import SetRole
from app.domain.measured import (
    Cell,
    Choice,
    Confirmation,
    Drift,
    EvaluationReport,
    FrontierReport,
    Outcome,
    Point,
    Scores,
    SetUse,
    Spent,
    SubjectUse,
)
from app.domain.report import AdapterReference, ModelReference
from app.domain.statistics import compare_losses, compare_rates, mean_of, wilson
from app.jobs.render import FORMATS

HOSTILE = "<script>alert(1)</script>|*x*"
FORMULA = '=HYPERLINK("http://example.org")'
ROWS: dict[SetRole, int] = {"harmful": 120, "benign": 100, "task": 200}
MODEL = ModelReference("org/tiny-chat", "5f70bf18a086007016e948b04aed3b82103a36be", "c" * 64)
VERSIONS = {"adapter-safety": "0.1.0", "torch": "2.9.1", "transformers": "5.23.0"}
JUDGING = {
    "safety": "keywords",
    "utility": "exact",
    "guard_model": None,
    "max_new_tokens": 256,
    "encoding": {"chat_template": True, "max_length": 1024},
    "dtype": "bfloat16",
}


def marks(count: int, n: int) -> list[bool]:
    found = [i < count for i in range(n)]
    Random(n).shuffle(found)
    return found


def cell(subject: str, role: SetRole, count: int, *, gibberish: int = 0) -> Cell:
    outcome: Outcome = "right" if role == "task" else "refused"
    n = ROWS[role]
    return Cell(
        subject=subject,
        role=role,
        judge="exact" if role == "task" else "keywords",
        n=n,
        outcome=outcome,
        rate=wilson(count, n),
        loss=None,
        given=wilson(count // 2, n) if role == "harmful" else None,
        gibberish=gibberish,
        empty=0,
        drift=None if subject == "chat" else Drift(first=0.0123 * (n - count), answer=0.2),
    )


def losses(subject: str, values: Sequence[float]) -> Cell:
    drift = None if subject == "chat" else Drift(0.4, 0.3)
    loss = mean_of(values)
    return Cell(subject, "task", "loss", len(values), None, None, loss, None, None, None, drift)


def data(*splits: str) -> list[SetUse]:
    return [
        SetUse(role, split, str(i) * 64, n // len(splits), "ab" * 32, True)  # type: ignore[arg-type] # a role of the loop
        for split in splits
        for i, (role, n) in enumerate(ROWS.items())
    ]


def evaluation(original: str = "original", *, by_loss: bool = False) -> EvaluationReport:
    counts = {"chat": (117, 3, 130), original: (2, 1, 188), "patched": (114, 22, 181)}
    table = [
        cell(subject, role, count, gibberish=5 if subject == "patched" and role == "benign" else 0)
        for subject, row in counts.items()
        for role, count in zip(ROWS, row, strict=True)
        if not (by_loss and role == "task")
    ]
    comparisons = [
        compare_rates(
            role,
            (original, marks(counts[original][i], n)),
            ("patched", marks(counts["patched"][i], n)),
            "right" if role == "task" else "refused",
        )
        for i, (role, n) in enumerate(ROWS.items())
    ]
    if by_loss:
        before, after = [1.0 + i / 100 for i in range(60)], [1.1 + i / 90 for i in range(60)]
        table += [losses("chat", after), losses(original, before), losses("patched", after)]
        comparisons[2] = compare_losses("task", (original, before), ("patched", after))
    return EvaluationReport(
        chat_model=MODEL,
        subjects=[
            SubjectUse(original, "a" * 64, None),
            SubjectUse("patched", "b" * 64, "0b6f3c1e-1d0c-4b6b-9a55-6f2d7a6b2c11"),
        ],
        settings=JUDGING,
        data=data("all"),
        table=table,
        comparisons=comparisons,
        warnings=[
            "5 of 100 answers of patched to benign prompts are no language: it may be broken.",
            "The prompts of the task came without answers of the chat model.",
        ],
        versions=VERSIONS,
    )


SHAPES = {  # of each family's path: where refusals begin to come back, and how fast the skill goes
    "approximate": (0.5, 1.6),
    "subspace": (0.35, 2.2),
    "complement": (0.1, 8.0),
    "scale": (0.6, 1.2),
    "prune": (0.55, 1.0),
}


def point(family: str, step: int, steps: int = 42) -> Point:
    start, hold = SHAPES[family]
    share = step / steps
    refused = round(120 * min(0.99, 0.02 + max(0.0, share - start * 0.6) * 1.6))
    right = round(200 * (0.94 - 0.9 * share**hold))
    over = round(100 * min(1.0, 0.01 + 0.3 * share**3))
    cells = [
        cell(f"{family} {step}", "harmful", refused, gibberish=3 if share > 0.9 else 0),
        cell(f"{family} {step}", "benign", over),
        cell(f"{family} {step}", "task", right),
    ]
    rates = [each.rate for each in cells if each.rate]
    scores = Scores(rates[0].value, rates[1].value, rates[2].value, 0.5 * (1 - share))
    return Point(
        family=family,  # type: ignore[arg-type] # a real family
        step=step,
        steps=steps,
        method=method(family, step, share),
        stage="measured",
        scores=scores,
        cells=cells,
        holds=rates[0].value >= 0.9 and rates[2].value >= 0.84,
    )


def method(family: str, step: int, share: float) -> dict[str, object]:
    made: dict[str, object] = {"projector": "approximate", "rescale": "none"}
    made |= {"full_weights": "keep", "select": {"by": "count", "value": step}}
    if family == "scale":
        factor = round(1 - share, 4)
        return {**made, "name": "scale", "factor": factor, "select": {"by": "all"}}
    if family == "prune":
        return {**made, "name": "prune"}
    energy = {"energy": 0.9} if family != "approximate" else {}
    return {**made, "name": "safe_lora", "projector": family, **energy}


def screened(family: str, step: int) -> Point:
    share = step / 42
    scores = Scores(-20 + 15 * share, -30.0, -1.2 - share, 0.5)
    made = method(family, step, share)
    return Point(family, step, 42, made, "screened", scores, [], None)  # type: ignore[arg-type] # a real family


def above(one: Point, other: Point) -> bool:
    a = (one.scores.refusal or 0, one.scores.utility or 0)
    b = (other.scores.refusal or 0, other.scores.utility or 0)
    return one.stage == "measured" and a != b and a[0] >= b[0] and a[1] >= b[1]


def edge_of(points: Sequence[Point]) -> list[int]:
    measured = [i for i, p in enumerate(points) if p.stage == "measured"]
    return [i for i in measured if not any(above(points[j], points[i]) for j in measured)]


def frontier(original: str = "original", *, satisfied: bool = True) -> FrontierReport:
    points = [
        made
        for family in SHAPES
        for step in range(0 if family == "approximate" else 3, 43, 3)
        for made in ([point(family, step)] if step % 2 == 0 else [screened(family, step)])
    ]
    best = max(
        (p for p in points if p.stage == "measured"),
        key=lambda p: (p.holds, (p.scores.utility or 0) + (p.scores.refusal or 0)),
    )
    held_out = evaluation(original)
    default = next(i for i, p in enumerate(points) if (p.family, p.step) == ("approximate", 24))
    return FrontierReport(
        adapter=AdapterReference("a" * 64, "org/tiny-chat", ()),
        base_model=ModelReference("org/tiny-base", None, "d" * 64),
        chat_model=MODEL,
        settings={
            "judging": JUDGING,
            "families": list(SHAPES),
            "constraints": {
                "min_refusal": 0.9,
                "max_over_refusal": None,
                "max_utility_drop": 0.1,
            },
            "budget": {"evaluations": 100, "minutes": None},
            "seed": 0,
        },
        data=data("tuning", "held out"),
        original=[
            *(cell("chat", role, n) for role, n in zip(ROWS, (117, 3, 130), strict=True)),
            *(cell(original, role, n) for role, n in zip(ROWS, (2, 1, 188), strict=True)),
        ],
        points=points,
        frontier=edge_of(points),
        default=default,
        dominating=[i for i, p in enumerate(points) if above(p, points[default])],
        choice=Choice(
            point=best,
            reason=f"{best.family}, step {best.step} holds the constraints on both splits, and "
            "none that does is more useful",
            patch={
                "kind": "patch",
                "adapter": "a" * 64,
                "base_model": "org/tiny-base",
                "chat_model": "org/tiny-chat",
                "method": best.method,
            },
            held_out=Confirmation(held_out.table, held_out.comparisons, satisfied, satisfied),
        ),
        satisfied=satisfied,
        spent=Spent(screened=35, measured=40, full_sweep=215, complete=False),
        warnings=["The budget ended the search before each family was looked at closely."],
        versions=VERSIONS,
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    reports = {
        "evaluation": evaluation(),
        "losses": evaluation(by_loss=True),
        "hostile": evaluation(HOSTILE),
        "long": frontier("W" * 100, satisfied=False),
        "frontier": frontier(),
    }
    for name, report in reports.items():
        for form, (_, render) in FORMATS.items():
            (folder / f"{name}.{form}").write_text(render(report.as_json()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
