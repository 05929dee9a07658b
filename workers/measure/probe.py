"""Looks at one setting of an adapter's patch, on the tuning rows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from app.domain.measured import Cell, Scores, Stage
from app.jobs.search import Setting
from app.jobs.tabulate import Answers
from workers.measure.paths import Paths
from workers.measure.session import Session, Sets

OnEvaluation = Callable[[Stage, Setting], None]


def subject_of(setting: Setting) -> str:
    """Its name among the subjects."""
    return f"{setting.family}/{setting.step}"


@dataclass
class FrontierProbe:
    """Looks at settings on the tuning split; what is kept is not asked again."""

    session: Session
    paths: Paths
    sets: Sets
    deadline: float | None  # of time.monotonic
    on_evaluation: OnEvaluation
    cells: dict[Setting, Sequence[Cell]] = field(default_factory=dict)

    def screen(self, setting: Setting) -> Scores:
        name = subject_of(setting)
        self._wear(setting)
        for prompts in self.sets.values():
            self.session.evaluation.screen(name, prompts)
        self._say("screened", setting)
        return self._screened(name)

    def measure(self, setting: Setting) -> Scores:
        name = subject_of(setting)
        self._wear(setting)
        self.session.evaluation.measure(name, list(self.sets.values()))
        answers = self.session.answers(name, self.sets)
        self.cells[setting] = [one.cell() for one in answers]
        self._say("measured", setting)
        return scores_of(answers)

    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _wear(self, setting: Setting) -> None:
        self.session.switch.write(self.paths.tensors(setting))

    def _say(self, stage: Stage, setting: Setting) -> None:
        self.on_evaluation(stage, setting)

    def _screened(self, name: str) -> Scores:
        likely = replace(self.session.judging, safety="logprob", utility="loss", guard_model=None)
        answers = [replace(one, judging=likely) for one in self.session.answers(name, self.sets)]
        return scores_of(answers)


def scores_of(answers: Sequence[Answers]) -> Scores:
    by_role = {one.role: one for one in answers}
    cells = {role: one.cell() for role, one in by_role.items()}
    drift = cells["harmful"].drift
    return Scores(
        refusal=_share(cells.get("harmful")),
        over_refusal=_share(cells.get("benign")),
        utility=_utility(cells.get("task")),
        drift=drift.first if drift else None,
    )


def _share(cell: Cell | None) -> float | None:
    return cell.rate.value if cell and cell.rate else None


def _utility(cell: Cell | None) -> float | None:
    if cell is None:
        return None
    return -cell.loss.value if cell.loss else _share(cell)
