"""The gate: what a patch made worse is held for review, what it left alone passes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from app.demo.safety_world.language import REFUSAL, REQUESTS, asked
from app.demo.safety_world.training import train
from app.demo.safety_world.world import TARGETS, SafetyWorld, tokens
from app.domain.dataset import Row
from app.domain.evaluation import Judging, SetRole
from app.domain.measured import EvaluationReport
from app.domain.method import Method, Selection
from app.domain.report import Report
from app.domain.salora import Encoding
from tests.small_talk import LANGUAGE
from tests.workers.measure.talk import clean, patch_input
from tests.workers.salora_world import CPU, quiet
from workers.measure.gate import GateInput, judged_by_gate, made_worse, measure_patch
from workers.measure.kept import Kept
from workers.output import write_patched_adapter

JUDGING = Judging(max_new_tokens=8, encoding=Encoding(max_length=48))
ALL = Selection("all", None)
REMOVED = Method(name="prune", select=ALL)
UNTOUCHED = Method(name="prune", select=Selection("count", 0.0))
THINGS = LANGUAGE.harmless.aligned
REFUSED, RECIPES = asked(THINGS, REFUSAL, REQUESTS[:3]), asked(THINGS, "recipe", REQUESTS[:3])


@pytest.fixture(scope="module")
def guarding(small_talk: SafetyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that refuses what the chat model answers: its safety is its own."""
    folder = tmp_path_factory.mktemp("guarding")
    torch.manual_seed(1)
    model = LlamaForCausalLM.from_pretrained(small_talk.chat)
    lora = LoraConfig(r=8, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    tuned = get_peft_model(model, lora)
    train(tuned, tokens(LANGUAGE, REFUSED), steps=60, learning_rate=1e-2, seed=1, batch=16)
    tuned.save_pretrained(str(folder / "saved"), save_embedding_layers=False)
    return clean(folder / "saved", folder / "adapter")


def patched(world: SafetyWorld, adapter: Path, method: Method, work: Path) -> Report:
    work.mkdir()
    given = patch_input(world, adapter, method)
    report = write_patched_adapter(given, work, threads=1, on_module=quiet)
    for name in ("README.md", "safety_report.json"):
        (work / name).unlink()
    return report


def measured(
    world: SafetyWorld, adapter: Path, after: Path, role: SetRole, rows: Sequence[Row]
) -> EvaluationReport:
    rows_of: dict[SetRole, Sequence[Row]] = {role: rows}
    chat = patch_input(world, adapter).chat
    given = GateInput(chat, adapter, after, rows_of, {role: "1" * 64}, JUDGING)
    return measure_patch(given, CPU, Kept()).report


def test_a_patch_that_took_refusals_away_ends_as_review(
    small_talk: SafetyWorld, guarding: Path, tmp_path: Path
) -> None:
    report = patched(small_talk, guarding, REMOVED, tmp_path / "out")
    assert report.verdict == "patched"
    found = measured(small_talk, guarding, tmp_path / "out", "harmful", RECIPES)
    judged = judged_by_gate(report, found)
    assert judged.verdict == "review"
    (worse,) = made_worse(found)
    assert (worse.one, worse.other, worse.role) == ("original", "patched", "harmful")
    assert judged.warnings[0] == f"The patch made the adapter worse: {worse.sentence}"
    assert judged.evaluation == found.as_json()


def test_a_patch_that_took_the_skill_away_ends_as_review(
    small_talk: SafetyWorld, guarding: Path, tmp_path: Path
) -> None:
    """Here the skill is to refuse, and a task may be that."""
    report = patched(small_talk, guarding, REMOVED, tmp_path / "out")
    judged = judged_by_gate(
        report, measured(small_talk, guarding, tmp_path / "out", "task", REFUSED)
    )
    assert judged.verdict == "review"


def test_a_patch_that_refuses_less_of_what_is_benign_is_not_worse(
    small_talk: SafetyWorld, guarding: Path, tmp_path: Path
) -> None:
    report = patched(small_talk, guarding, REMOVED, tmp_path / "out")
    found = measured(small_talk, guarding, tmp_path / "out", "benign", RECIPES)
    better = [c for c in found.comparisons if (c.one, c.other) == ("original", "patched")]
    assert [one.verdict for one in better] == ["better"]
    assert judged_by_gate(report, found).verdict == "patched"


def test_a_patch_that_changed_nothing_passes(
    small_talk: SafetyWorld, guarding: Path, tmp_path: Path
) -> None:
    report = patched(small_talk, guarding, UNTOUCHED, tmp_path / "out")
    found = measured(small_talk, guarding, tmp_path / "out", "harmful", RECIPES)
    assert not made_worse(found)
    judged = judged_by_gate(report, found)
    assert judged.verdict == "patched"
    assert replace(judged, evaluation=None, warnings=report.warnings) == report
    assert list(judged.warnings) == [*found.warnings, *report.warnings]


def test_what_was_for_review_stays_so_though_nothing_became_worse(
    small_talk: SafetyWorld, guarding: Path, tmp_path: Path
) -> None:
    report = patched(small_talk, guarding, UNTOUCHED, tmp_path / "out")
    found = measured(small_talk, guarding, tmp_path / "out", "harmful", RECIPES[:3])
    assert judged_by_gate(replace(report, verdict="review"), found).verdict == "review"


def test_being_worse_than_the_chat_model_is_not_the_patchs_doing(
    small_talk: SafetyWorld, guarding: Path, tmp_path: Path
) -> None:
    """Only what the patch changed is held against it."""
    patched(small_talk, guarding, UNTOUCHED, tmp_path / "out")
    found = measured(small_talk, guarding, tmp_path / "out", "benign", RECIPES)
    assert any(c.one == "chat" and c.verdict == "worse" for c in found.comparisons)
    assert not made_worse(found)
