"""The no-harm gate: an adapter before and after its patch, measured before it is published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.domain.evaluation import Judging, SetRole
from app.domain.measured import Comparison, EvaluationReport, SubjectUse
from app.domain.report import Report
from app.intake.manifest import read_manifest
from workers.compute import Compute
from workers.measure.evaluate import Evaluated, EvaluateInput, Measurand, evaluate
from workers.measure.kept import Kept
from workers.measure.session import Rows
from workers.measure.switch import LoadedAdapter
from workers.run import NamedCheckpoint

BEFORE, AFTER = "original", "patched"


@dataclass(frozen=True)
class GateInput:
    chat: NamedCheckpoint
    before: Path  # folders of the two files each
    after: Path
    rows: Rows
    datasets: Mapping[SetRole, str]
    judging: Judging
    guard: NamedCheckpoint | None = None


def measure_patch(given: GateInput, compute: Compute, kept: Kept) -> Evaluated:
    """Chat model, original and patched adapter side by side. Raises what `evaluate` raises."""
    subjects = [_measurand(BEFORE, given.before), _measurand(AFTER, given.after)]
    asked = EvaluateInput(
        given.chat, subjects, given.rows, given.datasets, given.judging, given.guard
    )
    return evaluate(asked, compute, kept)


def _measurand(name: str, folder: Path) -> Measurand:
    manifest = read_manifest(folder)
    return Measurand(SubjectUse(name, manifest.id, None), LoadedAdapter.read(folder, manifest))


def made_worse(found: EvaluationReport) -> Sequence[Comparison]:
    """Where the patched adapter is significantly worse than the original."""
    return [
        one
        for one in found.comparisons
        if (one.one, one.other) == (BEFORE, AFTER) and one.verdict == "worse"
    ]


def judged_by_gate(report: Report, found: EvaluationReport) -> Report:
    """The patch's report with what was measured: `review` where it made something worse."""
    worse = made_worse(found)
    said = [f"The patch made the adapter worse: {one.sentence}" for one in worse]
    return replace(
        report,
        verdict="review" if worse else report.verdict,
        warnings=[*said, *found.warnings, *report.warnings],
        evaluation=found.as_json(),
    )
