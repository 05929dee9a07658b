"""Search one adapter's settings on tuning rows, and confirm the chosen one on held-out rows."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from app.alignment.blocks import torch_threads
from app.domain.adapter import AdapterManifest
from app.domain.errors import InvalidField
from app.domain.evaluation import CHAT, FrontierRecipe
from app.domain.measured import (
    Cell,
    Choice,
    Confirmation,
    FrontierReport,
    Point,
    SetUse,
    Spent,
    Stage,
)
from app.domain.method import Method
from app.domain.report import AdapterReference
from app.domain.statistics import two_proportions
from app.jobs.search import Search, Setting, dominates, shortfall
from app.jobs.tabulate import comparisons, warnings
from workers.compute import Compute
from workers.measure.evaluate import settings_of
from workers.measure.kept import Kept
from workers.measure.paths import Paths, make_paths
from workers.measure.probe import FrontierProbe, scores_of
from workers.measure.session import Rows, Session, in_roles, transcripts
from workers.measure.splits import Splits, split
from workers.pipeline import Shelves
from workers.run import PatchInput, Progress
from workers.safety_module import versions
from workers.sweeping import OnStep

ORIGINAL, CHOSEN = "original", "chosen"
CHANCE = 0.05  # over all roles together


@dataclass(frozen=True)
class FrontierInput:
    patch: PatchInput  # its method plays no part
    recipe: FrontierRecipe
    rows: Rows
    held_out: Rows  # of no role: the rows are split


@dataclass(frozen=True)
class FrontierKept:
    """Of both splits, for whoever goes on."""

    tuning: Kept
    held_out: Kept


@dataclass(frozen=True)
class Found:
    report: FrontierReport
    transcripts: Sequence[Mapping[str, object]]


def find_frontier(
    given: FrontierInput,
    work: Path,
    compute: Compute,
    kept: FrontierKept,
    on_step: OnStep,
    shelves: Shelves | None = None,
) -> Found:
    """`work` is an empty folder. What is kept is not asked again. Raises NoRefusalToRestore, and
    what patching, encoding, splitting and measuring raise."""
    began = time.monotonic()
    paths = _paths(given, work, compute, on_step, shelves)
    with torch_threads(compute.threads):
        judging = given.recipe.judging
        session = Session.open(given.patch.chat, judging, compute, kept.tuning)
        sets, held_out = session.encoded(given.rows), session.encoded(given.held_out)
        splits = split(sets, held_out, given.recipe.seed)
        return _Frontier(given, paths, session, kept, splits, on_step, began).found()


def _paths(
    given: FrontierInput, work: Path, compute: Compute, on_step: OnStep, shelves: Shelves | None
) -> Paths:
    def on_module(progress: Progress) -> None:
        event = {"module": progress.module, "cosine": progress.cosine}
        on_step(progress.done, progress.total, "module", event)

    threads = compute.threads
    paths = make_paths(
        given.patch, given.recipe, work, threads=threads, on_module=on_module, shelves=shelves
    )
    if not paths.steps:
        raise InvalidField(field="adapter", reason="none of its modules can be changed by a patch")
    return paths


@dataclass(frozen=True)
class _Frontier:
    given: FrontierInput
    paths: Paths
    session: Session
    kept: FrontierKept
    splits: Splits
    on_step: OnStep
    began: float

    def found(self) -> Found:
        harmful = self.splits.tuning["harmful"]
        self.session.chat(self.splits.tuning)
        self.session.evaluation.require_refusals(len(harmful.prompts))
        self.session.switch.wear(self.paths.adapter)
        search = self._searched()
        best = search.best()
        choice = None if best is None else self._choice(best, search)
        report = self._report(search, choice)
        told = transcripts(self.session, self.splits.tuning)
        return Found(report, [*told, *transcripts(self._held_out, self.splits.held_out)])

    # ---------------------------------------------------------------------------------- search
    @cached_property
    def probe(self) -> FrontierProbe:
        minutes = self.given.recipe.budget.minutes
        deadline = None if minutes is None else self.began + 60 * minutes
        return FrontierProbe(self.session, self.paths, self.splits.tuning, deadline, self._say)

    @cached_property
    def search(self) -> Search:
        recipe = self.given.recipe
        families, most = recipe.families, recipe.budget.evaluations
        return Search(self.probe, families, self.paths.steps, recipe.constraints, most)

    def _searched(self) -> Search:
        original = Setting(self.given.recipe.families[0], 0)
        default = self.paths.default
        self.search.run([original, default] if default else [original])
        return self.search

    def _say(self, stage: Stage, setting: Setting) -> None:
        event = {"family": setting.family, "step": setting.step, "stage": stage}
        done = min(self.search.spent + 1, self.search.budget)
        self.on_step(done, self.search.budget, "evaluation", event)

    # ---------------------------------------------------------------------------- confirmation
    @cached_property
    def _held_out(self) -> Session:
        return self.session.beside(self.kept.held_out)

    def _choice(self, best: Setting, search: Search) -> Choice:
        point, held_out = self._point(best, search), self._confirmed(best)
        body = {
            "kind": "patch",
            "adapter": self.given.patch.manifest.id,
            "base_model": self.given.patch.base and self.given.patch.base.id,
            "chat_model": self.given.patch.chat.id,
            "method": point.method,
        }
        reason = _why(point, held_out)
        return Choice(point, reason, body if best.step else None, held_out)

    def _confirmed(self, best: Setting) -> Confirmation:
        session, sets = self._held_out, self.splits.held_out
        session.chat(sets)
        session.switch.wear(self.paths.adapter)
        for name, setting in ((ORIGINAL, Setting(best.family, 0)), (CHOSEN, best)):
            session.switch.write(self.paths.tensors(setting))
            session.evaluation.measure(name, list(sets.values()))
        answers = [session.answers(name, sets) for name in (CHAT, ORIGINAL, CHOSEN)]
        before, after = scores_of(answers[1]), scores_of(answers[2])
        flat = in_roles([one for subject in answers for one in subject])
        constraints = self.given.recipe.constraints
        return Confirmation(
            table=[one.cell() for one in flat],
            comparisons=list(comparisons(flat)),
            holds=shortfall(after, before, constraints) == 0,
            agrees=_agree(self.probe.cells[self._measured(best)], [a.cell() for a in answers[2]]),
        )

    def _measured(self, setting: Setting) -> Setting:
        """The adapter as it came is measured once, under the first family."""
        return setting if setting.step else Setting(self.given.recipe.families[0], 0)

    # ---------------------------------------------------------------------------------- report
    def _point(self, setting: Setting, search: Search) -> Point:
        cells = self.probe.cells.get(setting, ())
        stage: Stage = "measured" if setting in search.measured else "screened"
        scores = (search.measured if stage == "measured" else search.screened)[setting]
        holds = shortfall(scores, search.original, search.constraints) == 0
        return Point(
            family=setting.family,
            step=setting.step,
            steps=self.paths.steps,
            method=method_body(self.paths.method(setting)),
            stage=stage,
            scores=scores,
            cells=cells,
            holds=holds if stage == "measured" else None,
        )

    def _report(self, search: Search, choice: Choice | None) -> FrontierReport:
        given, recipe = self.given, self.given.recipe
        seen = sorted({*search.measured, *search.screened}, key=self._order)
        default = self.paths.default
        assert given.patch.base is not None  # noqa: S101 because a frontier is of both models
        chat = self.session.answers(CHAT, self.splits.tuning)
        return FrontierReport(
            adapter=_adapter(given.patch.manifest),
            base_model=given.patch.base.reference,
            chat_model=given.patch.chat.reference,
            settings=_settings(recipe),
            data=list(self._data()),
            original=[one.cell() for one in chat] + self._original(),
            points=[self._point(setting, search) for setting in seen],
            frontier=[seen.index(setting) for setting in search.front()],
            default=seen.index(self._measured(default)) if default else None,
            dominating=[seen.index(s) for s in search.measured if self._beats(s, search)],
            choice=choice,
            satisfied=bool(choice and choice.point.holds and choice.held_out.holds),
            spent=Spent(
                len(search.screened), len(search.measured), search.full_sweep, search.is_complete
            ),
            warnings=[*warnings(chat), *_warnings(given.patch.manifest, search, choice)],
            versions=versions(),
        )

    def _original(self) -> list[Cell]:
        cells = self.probe.cells[Setting(self.given.recipe.families[0], 0)]
        return [replace(cell, subject=ORIGINAL) for cell in cells]

    def _order(self, setting: Setting) -> tuple[int, int]:
        return self.given.recipe.families.index(setting.family), setting.step

    def _beats(self, setting: Setting, search: Search) -> bool:
        default = self.paths.default
        if default is None or self._measured(default) not in search.measured:
            return False
        return dominates(search.measured[setting], search.measured[self._measured(default)])

    def _data(self) -> Iterator[SetUse]:
        tuned = self.given.recipe.sets.by_role
        judged = self.given.recipe.held_out.by_role or tuned
        yield from self.session.uses(self.splits.tuning, tuned, "tuning")
        yield from self.session.uses(self.splits.held_out, judged, "held out")


def _adapter(manifest: AdapterManifest) -> AdapterReference:
    return AdapterReference(manifest.id, manifest.base_model_name, manifest.dropped_keys)


def _settings(recipe: FrontierRecipe) -> dict[str, Any]:
    found = asdict(recipe)
    for name in ("sets", "held_out", "judging"):
        del found[name]
    return {**found, **settings_of(recipe.judging)}


def method_body(method: Method) -> dict[str, Any]:
    """A method as a job's body has it, without what it leaves as it is."""
    found = {name: value for name, value in asdict(method).items() if value is not None}
    select = {name: value for name, value in found["select"].items() if value is not None}
    if method.select.by == "count" and method.select.value is not None:
        select["value"] = int(method.select.value)
    if method.name == "salora":
        del found["projector"]
    return {**found, "select": select}


def _why(point: Point, held_out: Confirmation) -> str:
    what = "the adapter as it came" if not point.step else f"{point.family}, step {point.step}"
    if not point.holds:
        return f"no setting that was measured holds the constraints; {what} comes nearest"
    if not held_out.holds:
        return f"{what} holds the constraints on the tuning rows, but not on the held-out rows"
    return f"{what} holds the constraints on both splits, and none that does is more useful"


def _agree(tuning: Sequence[Cell], held_out: Sequence[Cell]) -> bool:
    """Whether no rate is worse on the held-out rows beyond chance. Rows about one thing are alike,
    so that chance is more than the test knows: a rate that is better is taken for luck."""
    after = {cell.role: cell for cell in held_out}
    pairs = [(cell, after[cell.role]) for cell in tuning]
    return not any(_is_worse(one, other, CHANCE / len(pairs)) for one, other in pairs)


def _is_worse(before: Cell, after: Cell, chance: float) -> bool:
    if before.rate is None or after.rate is None:
        return False
    sign = -1 if before.role == "benign" else 1
    is_lower = sign * after.rate.value < sign * before.rate.value
    return is_lower and two_proportions(before.rate, after.rate) < chance


def _warnings(manifest: AdapterManifest, search: Search, choice: Choice | None) -> Iterator[str]:
    if not search.is_complete:
        yield (
            f"The search ended with its budget ({search.spent} of {search.full_sweep} evaluations "
            "that a full sweep takes): a better setting may be among those not looked at."
        )
    if manifest.full_weights:
        yield (
            f"{len(manifest.full_weights)} whole parameters bypass LoRA: they were kept in every "
            "setting."
        )
    if choice and not choice.held_out.agrees:
        yield "The chosen setting is worse on held-out rows than on tuning rows, beyond chance."
