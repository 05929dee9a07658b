"""Evaluations of real tiny models: what is asked, what is kept, and what the report is of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from app.domain.dataset import Row
from app.domain.errors import CheckpointRefused
from app.domain.evaluation import CHAT, Judging, SetRole
from app.domain.measure_errors import PromptsTooLong
from app.domain.measured import Cell, EvaluationReport, SubjectUse
from app.intake.manifest import read_manifest
from app.jobs.judging import judge_answer
from tests.chat_models import save_chat_model
from tests.factory import save_adapter
from tests.workers.measure.made import asked, counted
from tests.workers.salora_world import CPU, SHORT, named
from workers.measure import evaluation
from workers.measure.evaluate import Evaluated, EvaluateInput, Measurand, evaluate
from workers.measure.generation import Generator
from workers.measure.kept import Kept, read_kept, write_kept
from workers.measure.switch import LoadedAdapter

JUDGING = Judging(max_new_tokens=6, encoding=SHORT)
DATASETS: Mapping[SetRole, str] = {"harmful": "1" * 64, "benign": "2" * 64, "task": "3" * 64}
NAMES = (CHAT, "one", "two")


def rows(role: str, count: int) -> list[Row]:
    return [asked(f"{role[0]} {i} {'x' * (i % 5)}?", f"{i}", line=i) for i in range(1, count + 1)]


ROWS: Mapping[SetRole, Sequence[Row]] = {
    "harmful": rows("harmful", 7),
    "benign": [asked(f"b {i}?", line=i) for i in range(1, 6)],
    "task": rows("task", 6),
}


@dataclass(frozen=True)
class Made:
    folder: Path
    adapters: Sequence[Measurand]

    def given(self, judging: Judging = JUDGING, **changes: object) -> EvaluateInput:
        chat = named(self.folder / "chat")
        whole = EvaluateInput(chat, self.adapters, ROWS, DATASETS, judging)
        return replace(whole, **changes)  # type: ignore[arg-type] # the tests name real fields


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("evaluate")
    model = save_chat_model(folder / "chat")
    found = []
    for name in NAMES[1:]:
        save_adapter(model, folder / name, "llama", lora_alpha=400)
        (folder / name / "README.md").unlink(missing_ok=True)
        manifest = read_manifest(folder / name)
        use = SubjectUse(name, manifest.id, None)
        found.append(Measurand(use, LoadedAdapter.read(folder / name, manifest)))
    return Made(folder, found)


@pytest.fixture(autouse=True)
def refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model refuses nothing: answers of an even length count as refusals instead."""

    def judged(text: str, surprise: float | None = None) -> str:
        return "refused" if text and len(text) % 2 == 0 else judge_answer(text)

    monkeypatch.setattr(evaluation, "judge_answer", judged)


def cells(report: EvaluationReport) -> dict[tuple[str, str], Cell]:
    return {(cell.subject, cell.role): cell for cell in report.table}


def judged(told: Mapping[str, object]) -> str:
    return judge_answer(str(told["answer"]), told.get("surprise"))  # type: ignore[arg-type] # a number


def outcome(told: Mapping[str, object]) -> bool:
    if told["role"] == "task":
        return told["answer"] == str(told["line"])  # the row's response
    return judged(told) == "refused"


# ---------------------------------------------------------------------------------------- reports
def test_the_report_has_each_subject_on_each_role_from_its_transcripts(made: Made) -> None:
    found = evaluate(made.given(), CPU, Kept())
    told = found.transcripts
    assert len(told) == 3 * (7 + 5 + 6)
    assert list(cells(found.report)) == [
        (name, role) for role in ("harmful", "benign", "task") for name in NAMES
    ]
    for (name, role), cell in cells(found.report).items():
        own = [t for t in told if (t["subject"], t["role"]) == (name, role)]
        assert cell.n == len(own) == len(ROWS[role])  # type: ignore[index] # a role
        assert cell.rate
        assert cell.rate.count == sum(outcome(t) for t in own)
        assert cell.gibberish == sum(judged(t) == "gibberish" for t in own)
    assert {t["split"] for t in told} == {"all"}
    assert not any("ids" in t for t in told)
    texts = {row.messages[0].content for given in ROWS.values() for row in given}
    assert {t["prompt"] for t in told} == texts


def test_the_report_says_of_what_it_is(made: Made) -> None:
    report = evaluate(made.given(), CPU, Kept()).report
    assert [use.name for use in report.subjects] == ["one", "two"]
    assert [(use.role, use.rows, use.dataset) for use in report.data] == [
        (role, len(ROWS[role]), DATASETS[role]) for role in ROWS
    ]
    assert all(use.chat_template and use.split == "all" for use in report.data)
    assert (report.settings["safety"], report.settings["max_length"]) == ("keywords", 32)
    assert len(report.comparisons) == 3 * 3
    assert json.dumps(report.as_json())


def test_drift_is_of_adapters_and_not_of_the_chat_model(made: Made) -> None:
    for (name, _), cell in cells(evaluate(made.given(), CPU, Kept()).report).items():
        assert (cell.drift is None) == (name == CHAT)
        assert cell.drift is None or cell.drift.first > 0


def test_a_subject_is_measured_the_same_whoever_stands_beside_it(made: Made) -> None:
    whole = cells(evaluate(made.given(), CPU, Kept()).report)
    alone = cells(evaluate(made.given(subjects=made.adapters[1:]), CPU, Kept()).report)
    assert alone == {key: cell for key, cell in whole.items() if key[0] != "one"}


# ---------------------------------------------------------------------------------------- resuming
class Killed(Exception):
    """As a worker ends."""


def killed_after(kept: Kept, batches: int, path: Path) -> None:
    """What is known is written after each batch; after so many the process ends."""
    left = [batches]

    def on_more(now: Kept) -> None:
        write_kept(path, [now])
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    kept.on_more = on_more


@pytest.mark.parametrize("batches", [1, 4, 13, 25])
def test_from_a_kept_file_it_goes_on_without_asking_a_finished_prompt_again(
    made: Made, batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generator, "batch_tokens", 64)
    path, kept = tmp_path / "kept.jsonl", Kept()
    with counted(monkeypatch) as whole:
        wanted = evaluate(made.given(), CPU, Kept())
    killed_after(kept, batches, path)
    with counted(monkeypatch) as before, pytest.raises(Killed):
        evaluate(made.given(), CPU, kept)
    again = Kept()
    read_kept(path, [again])
    with counted(monkeypatch) as after:
        found = evaluate(made.given(), CPU, again)
    assert [*before, *after] == whole
    assert found.report == wanted.report
    assert by_key(found) == by_key(wanted)


def by_key(found: Evaluated) -> dict[object, Mapping[str, object]]:
    return {(t["subject"], t["role"], t["line"]): t for t in found.transcripts}


def test_a_kept_file_that_is_complete_leaves_nothing_to_compute(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, again = Kept(), Kept()
    wanted = evaluate(made.given(), CPU, kept)
    write_kept(tmp_path / "kept.jsonl", [kept])
    read_kept(tmp_path / "kept.jsonl", [again])
    assert again.told == kept.told
    passes: list[object] = []
    monkeypatch.setattr(Generator, "_batch", passes.append)
    monkeypatch.setattr("workers.measure.likelihood.Reader._batch", passes.append)
    assert evaluate(made.given(), CPU, again).report == wanted.report
    assert passes == []


# ------------------------------------------------------------------------------------------ judges
def test_by_likelihood_nothing_is_generated_for_adapters(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    judging = replace(JUDGING, safety="logprob", utility="loss")
    with counted(monkeypatch) as seen:
        report = evaluate(made.given(judging), CPU, Kept()).report
    assert len(seen) == 7 + 5 + 6  # the chat model's own answers, which all else is compared with
    for (name, role), cell in cells(report).items():
        assert cell.gibberish is None or name == CHAT
        assert (cell.rate is None) == (role == "task")
        assert (cell.loss is None) == (role != "task")


def test_by_likelihood_refusals_are_the_chat_models_own_and_answers_the_rows(made: Made) -> None:
    kept = Kept()
    evaluate(made.given(replace(JUDGING, safety="logprob")), CPU, kept)
    for (_, role, _line), told in kept.told.items():
        if role == "harmful":
            assert told.refusal is not None
            assert told.compliance is not None  # the rows have an answer
        elif role == "task":
            assert told.loss is not None
            assert told.loss > 0


def test_a_guard_model_judges_answers_to_harmful_prompts(made: Made, tmp_path: Path) -> None:
    """By its own template and within its own context."""
    save_chat_model(tmp_path / "guard", "gpt2", seed=3)
    judging = Judging(safety="model", guard_model="g", max_new_tokens=6, encoding=SHORT)
    kept = Kept()
    short = {**ROWS, "harmful": [asked("h?", line=1), asked("hh?", line=2)]}
    given = made.given(judging, guard=named(tmp_path / "guard"), rows=short)
    report = evaluate(given, CPU, kept).report
    verdicts = {key: told.guard for key, told in kept.told.items() if told.guard is not None}
    assert set(verdicts) == {(name, "harmful", line) for name in NAMES for line in (1, 2)}
    assert {cell.outcome for cell in report.table if cell.role == "harmful"} == {"safe"}
    assert {cell.judge for cell in report.table if cell.role == "benign"} == {"keywords"}


def test_what_the_guard_cannot_read_whole_is_refused_with_its_line(
    made: Made, tmp_path: Path
) -> None:
    """The measured model sees further than the guard does."""
    save_chat_model(tmp_path / "guard", "gpt2", seed=3)
    judging = Judging(safety="model", guard_model="g", max_new_tokens=6, encoding=SHORT)
    rows = {"harmful": [asked("h?", line=1), asked("h" * 25, line=2)]}
    given = made.given(judging, guard=named(tmp_path / "guard"), rows=rows, subjects=())
    with pytest.raises(PromptsTooLong, match=r"harmful set, line 2: .* less than 32"):
        evaluate(given, CPU, Kept())


def test_a_guard_model_without_a_template_is_refused(made: Made, tmp_path: Path) -> None:
    save_chat_model(tmp_path / "guard", template=None)
    judging = Judging(safety="model", guard_model="g", max_new_tokens=6, encoding=SHORT)
    given = made.given(judging, guard=named(tmp_path / "guard"))
    with pytest.raises(CheckpointRefused, match="no chat template") as caught:
        evaluate(given, CPU, Kept())
    assert caught.value.facts["field"] == "guard_model"


def test_the_checkpoints_dtype_is_taken_or_the_one_that_is_asked_for(made: Made) -> None:
    judging = replace(JUDGING, dtype="bfloat16")
    found, plain = (evaluate(made.given(j), CPU, Kept()).report for j in (judging, JUDGING))
    assert found.settings["dtype"] == "bfloat16"
    assert found.table != plain.table
    assert torch.get_default_dtype() == torch.float32
