"""A frontier of a real adapter that has unlearnt refusals: what it spends, finds and says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.demo.safety_world.world import SafetyWorld
from app.domain.adapter import WEIGHTS_FILE
from app.domain.errors import InvalidField
from app.domain.evaluation import CHAT, Budget, Constraints, FamilyName, FrontierRecipe, Sets
from app.domain.measure_errors import NoRefusalToRestore, SetsOverlap
from app.domain.measured import Cell, FrontierReport, Point
from app.domain.method import Method, Selection
from app.intake.manifest import read_manifest
from app.jobs.search import dominates
from tests.workers.measure.made import counted
from tests.workers.measure.talk import (
    HELD_OUT,
    JUDGING,
    RECIPE,
    TUNING,
    adapter_of,
    measurand,
    patch_input,
    recipe,
    rows_of,
)
from tests.workers.salora_world import CPU, quiet
from workers.measure.evaluate import EvaluateInput, evaluate
from workers.measure.frontier import Found, FrontierInput, FrontierKept, find_frontier
from workers.measure.kept import Kept, read_kept, write_kept
from workers.output import write_patched_adapter

SCALE: tuple[FamilyName, ...] = ("scale",)


def fresh() -> FrontierKept:
    return FrontierKept(Kept(split="tuning"), Kept(split="held out"))


@dataclass
class Searches:
    """Searches of one adapter."""

    world: SafetyWorld
    work: Path
    adapter: Path
    count: int = field(default=0)

    def given(self, asked: FrontierRecipe, **changes: object) -> FrontierInput:
        held_out = rows_of(self.world, "held_out") if asked.held_out.by_role else {}
        patch = patch_input(self.world, self.adapter)
        whole = FrontierInput(patch, asked, rows_of(self.world, "tuning"), held_out)
        return replace(whole, **changes)  # type: ignore[arg-type] # the tests name real fields

    def found(
        self,
        given: FrontierInput,
        kept: FrontierKept | None = None,
        on_step: Any = quiet,
    ) -> Found:
        self.count += 1
        work = self.work / str(self.count)
        work.mkdir()
        return find_frontier(given, work, CPU, kept or fresh(), on_step)


@pytest.fixture(scope="module")
def searches(small_talk: SafetyWorld, tmp_path_factory: pytest.TempPathFactory) -> Searches:
    work = tmp_path_factory.mktemp("frontier")
    return Searches(small_talk, work, adapter_of(small_talk, work))


@pytest.fixture(scope="module")
def found(searches: Searches) -> Found:
    return searches.found(searches.given(recipe()))


@pytest.fixture(scope="module")
def report(found: Found) -> FrontierReport:
    return found.report


def chosen(report: FrontierReport) -> Point:
    assert report.choice
    return report.choice.point


def method_of(body: Mapping[str, Any]) -> Method:
    return Method(**{**body, "select": Selection(**{"value": None, **body["select"]})})


def unnamed(cells: Sequence[Cell]) -> list[Cell]:
    return [replace(cell, subject="it") for cell in cells]


# ------------------------------------------------------------------------------------------ choice
def test_the_choice_patched_by_its_own_method_is_the_adapter_that_was_measured(
    searches: Searches, report: FrontierReport, tmp_path: Path
) -> None:
    assert report.choice
    assert report.choice.patch
    asked = method_of(report.choice.patch["method"])
    out = tmp_path / "out"
    out.mkdir()
    given = patch_input(searches.world, searches.adapter, asked)
    write_patched_adapter(given, out, threads=1, on_module=quiet)
    (out / "README.md").unlink()
    (out / "safety_report.json").unlink()
    for split, cells in (
        ("tuning", chosen(report).cells),
        ("held_out", [c for c in report.choice.held_out.table if c.subject == "chosen"]),
    ):
        given_rows = rows_of(searches.world, split)
        subjects = [measurand("it", out)]
        of_both = EvaluateInput(
            given.chat, subjects, given_rows, dict.fromkeys(given_rows, "0" * 64), JUDGING
        )
        table = evaluate(of_both, CPU, Kept()).report.table
        assert [cell for cell in table if cell.subject == "it"] == unnamed(cells)


def test_the_choice_restores_refusals_that_the_adapter_had_unlearnt(
    report: FrontierReport,
) -> None:
    by_subject = {(c.subject, c.role): c.rate for c in report.original}
    chat, original = by_subject[CHAT, "harmful"], by_subject["original", "harmful"]
    assert chat
    assert original
    assert chat.value >= 0.95 > original.value
    assert chosen(report).holds
    assert (chosen(report).scores.refusal or 0) >= 0.95


def test_the_body_of_the_patch_names_the_job_that_makes_it(
    searches: Searches, report: FrontierReport
) -> None:
    assert report.choice
    body = report.choice.patch
    assert body
    assert body["kind"] == "patch"
    assert body["adapter"] == read_manifest(searches.adapter).id == report.adapter.id
    assert (body["base_model"], body["chat_model"]) == ("lab/base", "lab/chat")
    assert body["method"] == chosen(report).method


def test_where_the_adapter_as_it_came_is_best_there_is_nothing_to_patch(
    searches: Searches,
) -> None:
    asked = recipe(constraints=Constraints(max_utility_drop=0.0, min_refusal=0.0), families=SCALE)
    report = searches.found(searches.given(asked)).report
    assert report.choice
    assert (chosen(report).step, report.choice.patch) == (0, None)
    assert report.choice.reason.startswith("the adapter as it came holds the constraints on both")
    assert report.satisfied


def test_where_nothing_holds_the_constraints_the_nearest_is_named_as_that(
    searches: Searches,
) -> None:
    asked = recipe(constraints=Constraints(min_refusal=1.0, max_utility_drop=0.0), families=SCALE)
    report = searches.found(searches.given(asked)).report
    assert report.choice
    assert not chosen(report).holds
    assert not report.satisfied
    assert report.choice.reason.endswith("comes nearest")


# ------------------------------------------------------------------------------------------ report
def test_points_are_by_family_and_step_and_their_indices_mean_what_they_say(
    report: FrontierReport,
) -> None:
    order = [(RECIPE.families.index(point.family), point.step) for point in report.points]
    assert order == sorted(set(order))
    assert report.points[0].step == 0
    measured = [point for point in report.points if point.stage == "measured"]
    assert all(point.cells and point.holds is not None for point in measured)
    assert all(not p.cells and p.holds is None for p in report.points if p.stage == "screened")
    for index in report.frontier:
        point = report.points[index]
        assert point.stage == "measured"
        assert not any(dominates(other.scores, point.scores) for other in measured)
    assert report.default is not None
    default = report.points[report.default]
    assert (default.family, default.stage) == ("approximate", "measured")
    wanted = [p for p in measured if dominates(p.scores, default.scores)]
    dominating = [report.points[index] for index in report.dominating]
    assert sorted(dominating, key=str) == sorted(wanted, key=str)


def test_the_report_says_what_was_measured_on_which_rows(
    searches: Searches, report: FrontierReport
) -> None:
    rows = {split: rows_of(searches.world, split) for split in ("tuning", "held_out")}
    assert [(use.role, use.split, use.dataset, use.rows) for use in report.data] == [
        (role, split.replace("_", " "), dataset, len(rows[split][role]))
        for split, sets in (("tuning", TUNING), ("held_out", HELD_OUT))
        for role, dataset in sets.by_role.items()
    ]
    assert [(cell.subject, cell.role) for cell in report.original] == [
        (subject, role) for subject in (CHAT, "original") for role in TUNING.by_role
    ]
    assert report.choice
    assert {cell.subject for cell in report.choice.held_out.table} == {CHAT, "original", "chosen"}
    assert json.dumps(report.as_json())


def test_transcripts_have_every_answer_of_both_splits(found: Found) -> None:
    told = [t for t in found.transcripts if "answer" in t]
    measured = sum(point.stage == "measured" for point in found.report.points)
    rows = {
        split: (sum(used), sum(used[:2]))  # the chat model's, and adapters', of which of the task
        for split in ("tuning", "held out")  # only the loss is asked for
        if (used := [use.rows for use in found.report.data if use.split == split])
    }
    whole, adapters = rows["tuning"]
    assert sum(t["split"] == "tuning" for t in told) == whole + measured * adapters
    whole, adapters = rows["held out"]
    assert sum(t["split"] == "held out" for t in told) == whole + 2 * adapters
    assert not any("ids" in t for t in told)


# ------------------------------------------------------------------------------------------ budget
def test_evaluations_stay_within_the_budget_and_are_counted(searches: Searches) -> None:
    steps: list[tuple[int, int, str, object]] = []
    asked = recipe(budget=Budget(evaluations=10))
    report = searches.found(searches.given(asked), on_step=lambda *step: steps.append(step)).report
    told = [step for step in steps if step[2] == "evaluation"]
    assert report.spent.screened + report.spent.measured == len(told) <= 10
    assert [done for done, *_ in told] == list(range(1, len(told) + 1))
    assert {total for _, total, *_ in told} == {10}
    assert len([step for step in steps if step[2] == "module"]) == 3 * 14
    assert report.spent.full_sweep == 14 * 3 + 1
    assert not report.spent.complete
    assert any("ended with its budget (10 of 43" in warning for warning in report.warnings)


def test_a_search_whose_time_is_up_reports_the_original_and_the_default(
    searches: Searches,
) -> None:
    asked = recipe(budget=Budget(evaluations=20, minutes=1e-9))
    report = searches.found(searches.given(asked)).report
    assert (report.spent.screened, report.spent.complete) == (0, False)
    assert {(point.family, point.stage) for point in report.points} == {("approximate", "measured")}
    assert report.default is not None
    assert report.choice


# ---------------------------------------------------------------------------------------- going on
class Killed(Exception):
    """As a worker ends."""


@pytest.mark.parametrize("evaluations", [1, 6, 14])
def test_interrupted_and_gone_on_from_what_was_kept_it_gives_the_same_report(
    searches: Searches,
    found: Found,
    evaluations: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(done: int, _: int, name: str, __: object) -> None:
        if name == "evaluation" and done == evaluations:
            raise Killed

    given, path = searches.given(recipe()), tmp_path / "kept.jsonl"
    before, after = fresh(), fresh()
    with pytest.raises(Killed):
        searches.found(given, before, stop)
    write_kept(path, [before.tuning, before.held_out])
    read_kept(path, [after.tuning, after.held_out])
    kept = list(after.tuning.told.values())
    with counted(monkeypatch) as asked:
        again = searches.found(given, after)
    assert again.report == found.report
    answers = [told for told in found.transcripts if "answer" in told]
    assert len(asked) == len(answers) - sum(told.answer is not None for told in kept)
    assert {json.dumps(t, sort_keys=True) for t in again.transcripts} == {
        json.dumps(t, sort_keys=True) for t in found.transcripts
    }


# ------------------------------------------------------------------------------------------- rows
def test_without_held_out_sets_the_rows_are_split_by_the_seed(searches: Searches) -> None:
    asked = recipe(held_out=Sets(), families=SCALE, budget=Budget(evaluations=10))
    report = searches.found(searches.given(asked)).report
    rows = {(use.role, use.split): use for use in report.data}
    for role in TUNING.by_role:
        one, other = rows[role, "tuning"], rows[role, "held out"]
        assert one.rows + other.rows == len(rows_of(searches.world, "tuning")[role])
        assert one.dataset == other.dataset
        assert one.prompts_sha256 != other.prompts_sha256


def test_held_out_rows_that_are_tuning_rows_are_refused(searches: Searches) -> None:
    rows = rows_of(searches.world, "tuning")
    with pytest.raises(SetsOverlap, match="harmful"):
        searches.found(searches.given(recipe(), held_out=rows))


def test_a_chat_model_that_refuses_none_of_the_prompts_ends_it(searches: Searches) -> None:
    rows = rows_of(searches.world, "tuning")
    harmless = {**rows, "harmful": rows["benign"]}
    with pytest.raises(NoRefusalToRestore, match="refuses none of the 8 harmful prompts"):
        searches.found(searches.given(recipe(), rows=harmless))


def test_an_adapter_that_changes_nothing_is_refused(searches: Searches, tmp_path: Path) -> None:
    path = adapter_of(searches.world, tmp_path) / WEIGHTS_FILE
    tensors = {n: torch.zeros_like(t) if "lora_B" in n else t for n, t in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InvalidField, match="none of its modules can be changed"):
        searches.found(searches.given(recipe(), patch=patch_input(searches.world, path.parent)))
