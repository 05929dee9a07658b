"""The chat model and adapters on it, side by side: one report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.alignment.blocks import torch_threads
from app.domain.evaluation import CHAT, Judging, SetRole
from app.domain.measured import EvaluationReport, SubjectUse
from app.jobs.tabulate import Answers, comparisons, warnings
from workers.compute import Compute
from workers.measure.guard import judge_by_model
from workers.measure.kept import Kept
from workers.measure.session import Rows, Session, Sets, in_roles, transcripts
from workers.measure.switch import LoadedAdapter
from workers.run import NamedCheckpoint
from workers.safety_module import versions


@dataclass(frozen=True)
class Measurand:
    """One adapter under its name."""

    use: SubjectUse
    adapter: LoadedAdapter


@dataclass(frozen=True)
class EvaluateInput:
    chat: NamedCheckpoint
    subjects: Sequence[Measurand]
    rows: Rows
    datasets: Mapping[SetRole, str]  # StoredDataset.id
    judging: Judging
    guard: NamedCheckpoint | None = None


@dataclass(frozen=True)
class Evaluated:
    report: EvaluationReport
    answers: Sequence[Answers]
    transcripts: Sequence[Mapping[str, object]]


def evaluate(given: EvaluateInput, compute: Compute, kept: Kept) -> Evaluated:
    """What `kept` has is not asked again. Raises what opening, encoding and measuring raise, and
    what `kept.on_more` raises."""
    with torch_threads(compute.threads):
        session = Session.open(given.chat, given.judging, compute, kept)
        sets = session.encoded(given.rows)
        session.chat(sets)
        for subject in given.subjects:
            session.measure(subject.use.name, subject.adapter, sets)
        names = [CHAT, *(subject.use.name for subject in given.subjects)]
        if given.guard:
            judge_by_model(session, sets, names, given.guard, compute)
        return _evaluated(given, session, sets, names)


def _evaluated(
    given: EvaluateInput, session: Session, sets: Sets, names: Sequence[str]
) -> Evaluated:
    answers = [one for name in names for one in session.answers(name, sets)]
    report = EvaluationReport(
        chat_model=given.chat.reference,
        subjects=[subject.use for subject in given.subjects],
        settings=settings_of(given.judging),
        data=session.uses(sets, given.datasets, "all"),
        table=[one.cell() for one in in_roles(answers)],
        comparisons=list(comparisons(in_roles(answers))),
        warnings=list(warnings(answers)),
        versions=versions(),
    )
    return Evaluated(report, answers, transcripts(session, sets))


def settings_of(judging: Judging) -> dict[str, Any]:
    """As reports show it: flat."""
    found = asdict(judging)
    encoding = found.pop("encoding")
    return {**found, **encoding}
