"""`adapter-safety frontier` as a user runs it: exit codes, tables, folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from app.cli import program
from app.demo.safety_table import made_safety_module
from app.demo.safety_world.world import SafetyWorld
from app.domain.adapter import PATCHED_FILES, WEIGHTS_FILE
from tests.factory import World
from tests.service import Service
from tests.small_talk import ADAPTER, LENGTHS

WRITTEN = ["frontier.html", "frontier.json", "frontier.md", "transcripts.jsonl"]
QUICK = ("--budget", 10, "--families", "prune")


def sets(world: SafetyWorld, *, benign: bool = False) -> list[object]:
    """Tuning and held-out sets."""
    roles = ("harmful", "benign", "task") if benign else ("harmful", "task")
    return [
        part
        for role in roles
        for part in (
            f"--{role}", world.data(f"{role}_tuning"),
            f"--held-out-{role}", world.data(f"{role}_held_out"),
        )
    ]  # fmt: skip


def models(world: SafetyWorld) -> tuple[object, ...]:
    return ("--base-model", world.base, "--chat-model", world.chat)


def frontier(*arguments: object) -> Any:
    return CliRunner().invoke(program(), ["frontier", *map(str, (*arguments, *LENGTHS))])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_holds_is_patched_and_the_folder_is_a_peft_adapter(
    small_talk: SafetyWorld, tmp_path: Path
) -> None:
    adapter, out = small_talk.adapter(ADAPTER), tmp_path / "out"
    asked = (*models(small_talk), *sets(small_talk, benign=True), *QUICK, "--min-refusal", 0.9)
    files = ("--out", out, "--report", tmp_path / "points.csv")
    done = frontier(adapter, *asked, *files)
    assert done.exit_code == 0, done.stderr
    assert names(out) == sorted([*PATCHED_FILES, *WRITTEN])
    report = json.loads((out / "frontier.json").read_bytes())
    choice = report["choice"]
    assert f"chosen: prune, step {choice['point']['step']} of 14" in done.stdout
    assert choice["reason"] in " ".join(done.stdout.split())
    assert "On rows that took no part in choosing" in done.stdout
    spent = report["spent"]
    assert f"{spent['screened']} settings screened and {spent['measured']} answered" in done.stdout
    assert f"patched adapter and report: {out}" in " ".join(done.stdout.split())
    assert (tmp_path / "points.csv").read_text().startswith("family,step,steps,")
    told = (out / "transcripts.jsonl").read_text().splitlines()
    assert {json.loads(line)["split"] for line in told} == {"tuning", "held out"}
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small_talk.chat), str(out))
    select = ("--method", "prune", "--count", int(choice["point"]["method"]["select"]["value"]))
    again = ["patch", adapter, *models(small_talk), *select, "--out", tmp_path / "again"]
    assert CliRunner().invoke(program(), list(map(str, again))).exit_code == 0
    assert (tmp_path / "again" / WEIGHTS_FILE).read_bytes() == (out / WEIGHTS_FILE).read_bytes()


def test_what_does_not_hold_is_exit_code_1_and_is_patched_only_if_asked_to(
    small_talk: SafetyWorld, tmp_path: Path
) -> None:
    """No patch brings refusals back without a loss that is larger by something."""
    bounds = ("--min-refusal", 1, "--max-utility-drop", 0, "--utility", "loss")
    asked = (small_talk.adapter(ADAPTER), *models(small_talk), *sets(small_talk), *QUICK, *bounds)
    done = frontier(*asked, "--out", tmp_path / "no", "--json")
    assert done.exit_code == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["satisfied"] is False
    assert names(tmp_path / "no") == WRITTEN
    nearest = frontier(*asked, "--out", tmp_path / "nearest", "--take-nearest")
    assert nearest.exit_code == 1
    assert "nearest: " in nearest.stdout
    patched = report["choice"]["patch"] is not None
    expected = sorted([*PATCHED_FILES, *WRITTEN]) if patched else WRITTEN
    assert names(tmp_path / "nearest") == expected


def test_without_held_out_sets_the_rows_are_split_and_without_bounds_everything_holds(
    small_talk: SafetyWorld, tmp_path: Path
) -> None:
    data = (
        "--harmful",
        small_talk.data("harmful_tuning"),
        "--task",
        small_talk.data("task_tuning"),
    )
    families = ("--families", "scale", "--budget", 10, "--seed", 4)
    asked = (small_talk.adapter(ADAPTER), *models(small_talk), *data, *families)
    done = frontier(*asked, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    used = {(use["role"], use["split"]): use["rows"] for use in report["data"]}
    assert used["harmful", "tuning"] + used["harmful", "held out"] == 10
    wanted = report["choice"]["patch"]
    assert (WEIGHTS_FILE in names(tmp_path / "out")) == (wanted is not None)


def test_a_safety_module_adds_its_family(small_talk: SafetyWorld, tmp_path: Path) -> None:
    made_safety_module(small_talk, tmp_path / "module")
    asked = (small_talk.adapter(ADAPTER), *models(small_talk), *sets(small_talk))
    chosen = ("--families", "salora", "--safety-module", tmp_path / "module", "--budget", 10)
    done = frontier(*asked, *chosen, "--out", tmp_path / "out", "--json")
    assert done.exit_code in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert {point["family"] for point in report["points"]} == {"salora"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--held-out-harmful", "{overlapping}", "--held-out-task", "{held_task}"),
         "2 held-out prompts are in the tuning set as well (line 2"),
        (("--held-out-harmful", "{harmful}", "--held-out-task", "{held_task}"),
         "is the tuning set itself: harmful"),
        (("--held-out-harmful", "{held}"), "must have the same roles"),
        (("--task", "{prompts}"), "line 1: response is missing"),
        (("--harmful", "{empty}"), "has no rows"),
        (("--harmful", "{one}"), "cannot be split"),
        (("--chat-model", "{base}", "--base-model", "{chat}"), "refuses none of the"),
        (("--base-model", "{chat}"), "is the same model as base_model"),
        (("--base-model", "{none}"), "field base_model"),
        (("--base-model", "{other_base}", "--chat-model", "{other_chat}"), "does not fit"),
        (("--families", "best"), "must be some of"),
        (("--families", "scale,scale"), "has one twice"),
        (("--families", "salora"), "the family 'salora' needs one"),
        (("--safety-module", "{none}"), "field module"),
        (("--judge", "model"), "take keywords or logprob, then evaluate"),
        (("--max-over-refusal", 0.1), "needs a benign data set"),
        (("--budget", 3), "budget.evaluations"),
        (("--out", "{chat}"), "is there already"),
        (("--report", "{none}.txt"), "must end with one of"),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence_and_exit_code_2_and_leaves_nothing(
    small_talk: SafetyWorld,
    llama_world: World,
    tmp_path: Path,
    arguments: tuple[object, ...],
    said: str,
) -> None:
    harmful = small_talk.data("harmful_tuning").read_text().splitlines()
    held = small_talk.data("harmful_held_out").read_text().splitlines()
    lines = {
        "overlapping": [held[0], harmful[3], harmful[4]],
        "prompts": ['{"prompt": "a"}'],
        "empty": [""],
        "one": harmful[:1],
    }
    for name, rows in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    places = {
        **{name: tmp_path / f"{name}.jsonl" for name in lines},
        "harmful": small_talk.data("harmful_tuning"),
        "held": small_talk.data("harmful_held_out"),
        "held_task": small_talk.data("task_held_out"),
        "base": small_talk.base,
        "chat": small_talk.chat,
        "other_base": llama_world.base,
        "other_chat": llama_world.chat,
        "none": tmp_path / "none",
    }
    given = [str(part).format(**places) for part in arguments]
    data = ("--harmful", places["harmful"], "--task", small_talk.data("task_tuning"))
    out = ("--out", tmp_path / "results" / "out")
    done = frontier(small_talk.adapter(ADAPTER), *models(small_talk), *data, *out, *QUICK, *given)
    assert done.exit_code == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    results = tmp_path / "results"
    assert not results.exists() or not names(results)


@pytest.mark.parametrize("service", ["SQLite and a folder"], indirect=True)
def test_through_a_server_the_same_is_found_and_made(
    small_talk: SafetyWorld, tmp_path: Path, service: Service, model_root: Path
) -> None:
    for name in ("base", "chat"):
        source = small_talk.folder / "models" / name
        shutil.copytree(source, model_root / f"small-{name}", dirs_exist_ok=True)
    data = sets(small_talk, benign=True)
    asked = (small_talk.adapter(ADAPTER), *data, *QUICK, "--min-refusal", 0.9, "--json")
    here = frontier(*asked, *models(small_talk), "--out", tmp_path / "here")
    ids = ("--base-model", "small-base", "--chat-model", "small-chat", "--server", service.url)
    there = frontier(*asked, *ids, "--out", tmp_path / "there")
    assert (here.exit_code, there.exit_code) == (0, 0), here.stderr + there.stderr
    one, other = json.loads(here.stdout), json.loads(there.stdout)
    assert one["choice"]["point"] == other["choice"]["point"]
    assert names(tmp_path / "there") == names(tmp_path / "here")
    weights = [(tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("here", "there")]
    assert weights[0] == weights[1]
