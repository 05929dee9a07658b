"""`adapter-safety evaluate` as a user runs it: exit codes, tables, files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import program
from app.demo.safety_world.world import SafetyWorld
from app.domain.adapter import CONFIG_FILE
from tests.cli.test_cli import cli
from tests.factory import World
from tests.service import Service
from tests.small_talk import ADAPTER, LENGTHS


def sets(world: SafetyWorld, *roles: str) -> list[object]:
    names = roles or ("harmful", "benign", "task")
    return [part for role in names for part in (f"--{role}", world.data(f"{role}_held_out"))]


def evaluate(*arguments: object) -> Any:
    return CliRunner().invoke(program(), ["evaluate", *map(str, (*arguments, *LENGTHS))])


def named(world: SafetyWorld, name: str = "tuned") -> list[object]:
    return ["--adapter", f"{name}={world.adapter(ADAPTER)}"]


def test_the_chat_model_and_an_adapter_are_measured_side_by_side(
    small_talk: SafetyWorld, tmp_path: Path
) -> None:
    """In a process of its own, as a user does."""
    files = ("--report", tmp_path / "report.csv", "--transcripts", tmp_path / "told.jsonl")
    asked = (*named(small_talk), *sets(small_talk), *files, *LENGTHS)
    done = cli("evaluate", small_talk.chat, *asked)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("warning: ")
    assert "The harmful set has 10 rows" in done.stdout
    assert any(line.split()[:2] == ["chat", "1.000"] for line in said)
    assert any(line.split()[:2] == ["tuned", "0.800"] for line in said)
    assert "tuned and chat are not told apart by 10 harmful prompts" in done.stdout
    assert (tmp_path / "report.csv").read_text().startswith("subject,role,judge,n,")
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert len(told) == 2 * (10 + 8 + 8)
    assert {one["subject"] for one in told} == {"chat", "tuned"}
    assert told[0]["answer"] == "I cannot help with that ."


def test_json_is_the_report_and_nothing_else(small_talk: SafetyWorld) -> None:
    done = evaluate(small_talk.chat, *sets(small_talk, "harmful"), "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kind"] == "evaluate"
    (cell,) = report["table"]
    assert (cell["subject"], cell["role"], cell["rate"]["value"]) == ("chat", "harmful", 1.0)


def test_an_adapter_that_does_not_hold_a_bound_is_exit_code_1(small_talk: SafetyWorld) -> None:
    asked = (*named(small_talk), *sets(small_talk, "harmful", "benign"))
    bounds = ("--min-refusal", 0.9, "--max-over-refusal", 0.5)
    done = evaluate(small_talk.chat, *asked, *bounds)
    assert done.exit_code == 1
    said = "not held: tuned refuses 0.800 of the 10 harmful prompts, less than 0.9"
    assert said in done.stderr
    assert done.stderr.count("not held") == 1
    held = evaluate(small_talk.chat, *asked, "--min-refusal", 0.8)
    assert held.exit_code == 0, held.stderr


def test_without_adapters_the_chat_model_is_held_to_the_bounds(small_talk: SafetyWorld) -> None:
    done = evaluate(small_talk.base, *sets(small_talk, "harmful"), "--min-refusal", 0.5)
    assert done.exit_code == 1
    assert "not held: chat refuses 0.000" in done.stderr


def test_prompts_need_no_responses_and_a_training_folder_may_hold_more(
    small_talk: SafetyWorld, tmp_path: Path
) -> None:
    trained = shutil.copytree(small_talk.adapter(ADAPTER), tmp_path / "trained")
    (trained / "optimizer.pt").write_bytes(b"what a Trainer leaves there")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "how do I make tea"}\n')
    done = evaluate(small_talk.chat, "--adapter", f"a={trained}", "--harmful", prompts, "--json")
    assert done.exit_code == 0, done.stderr
    assert [cell["given"] for cell in json.loads(done.stdout)["table"]] == [None, None]


def test_a_guard_model_judges_and_a_loss_needs_no_answers(small_talk: SafetyWorld) -> None:
    judge = ("--judge", "model", "--guard-model", small_talk.base, "--utility", "loss")
    done = evaluate(small_talk.chat, *sets(small_talk, "harmful", "task"), *judge)
    assert done.exit_code == 0, done.stderr
    assert "harmful answered safely (model)" in done.stdout
    assert "task loss" in done.stdout


def test_an_adapter_to_be_exported_first_is_refused(
    small_talk: SafetyWorld, tmp_path: Path
) -> None:
    marked = shutil.copytree(small_talk.adapter(ADAPTER), tmp_path / "marked")
    config = json.loads((marked / CONFIG_FILE).read_bytes())
    (marked / CONFIG_FILE).write_text(json.dumps({**config, "salora_kit": "kit"}))
    done = evaluate(small_talk.chat, "--adapter", f"a={marked}", *sets(small_talk, "harmful"))
    assert done.exit_code == 2
    assert "export it first" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give at least one of harmful, benign and task"),
        (("--harmful", "{none}"), "field harmful: there is no file"),
        (("--harmful", "{empty}"), "has no rows"),
        (("--harmful", "{broken}"), "line 2"),
        (("--task", "{prompts}"), "prompts.jsonl: line 1: response is missing"),
        (("--harmful", "{long}"), "harmful set, line 1: the prompt has"),
        (("--harmful", "{ok}", "--adapter", "{adapter}"), "must be NAME=FOLDER"),
        (("--harmful", "{ok}", "--adapter", "chat={adapter}"), "and not 'chat'"),
        (("--harmful", "{ok}", "--adapter", "a={chat}", "--adapter", "a={none}"), "same name"),
        (("--harmful", "{ok}", "--adapter", "a={none}"), "there is nothing at"),
        (("--harmful", "{ok}", "--adapter", "a={chat}"), "does not belong"),
        (("--harmful", "{ok}", "--adapter", "a={others}"), "does not fit chat_model"),
        (("--harmful", "{ok}", "--judge", "model"), "the judge 'model' needs one"),
        (("--harmful", "{ok}", "--judge", "model", "--guard-model", "{none}"), "field guard_model"),
        (("--harmful", "{ok}", "--judge", "best"), "must be one of keywords, logprob, model"),
        (("--harmful", "{ok}", "--utility", "good"), "field utility"),
        (("--harmful", "{ok}", "--max-over-refusal", 0.1), "needs a benign data set"),
        (("--harmful", "{ok}", "--min-refusal", 2), "must lie in [0, 1]"),
        (("--harmful", "{ok}", "--report", "{none}.pdf"), "must end with one of"),
        (("--harmful", "{ok}", "--transcripts", "{none}/told.jsonl"), "there is no folder"),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence_and_exit_code_2(
    small_talk: SafetyWorld,
    llama_world: World,
    tmp_path: Path,
    arguments: tuple[object, ...],
    said: str,
) -> None:
    lines = {
        "empty": "\n",
        "broken": '{"prompt": "a"}\n{"prompt": 1}\n',
        "prompts": '{"prompt": "a"}\n',
        "long": json.dumps({"prompt": "make " * 60}) + "\n",
    }
    for name, text in lines.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    places = {
        **{name: tmp_path / f"{name}.jsonl" for name in lines},
        "ok": small_talk.data("harmful_held_out"),
        "adapter": small_talk.adapter(ADAPTER),
        "chat": small_talk.chat,
        "others": llama_world.adapter,
        "none": tmp_path / "none",
    }
    given = [str(part).format(**places) for part in arguments]
    done = evaluate(small_talk.chat, *given)
    assert done.exit_code == 2, done.stderr
    assert said in " ".join(done.stderr.split())


def test_a_chat_model_that_is_not_there_is_said(tmp_path: Path, small_talk: SafetyWorld) -> None:
    done = evaluate(tmp_path / "none", *sets(small_talk, "harmful"))
    assert done.exit_code == 2
    assert "field chat_model: there is no folder" in done.stderr


@pytest.mark.parametrize("service", ["SQLite and a folder"], indirect=True)
def test_through_a_server_the_same_is_measured(
    small_talk: SafetyWorld, tmp_path: Path, service: Service, model_root: Path
) -> None:
    shutil.copytree(small_talk.chat, model_root / "small-chat", dirs_exist_ok=True)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "how do I make tea"}\n')
    asked = (*named(small_talk), "--harmful", prompts, *sets(small_talk, "task"), "--json")
    here = evaluate(small_talk.chat, *asked)
    told = tmp_path / "told.jsonl"
    there = evaluate("small-chat", *asked, "--server", service.url, "--transcripts", told)
    assert (here.exit_code, there.exit_code) == (0, 0), here.stderr + there.stderr
    one, other = json.loads(here.stdout), json.loads(there.stdout)
    for name in ("data", "subjects", "settings", "comparisons"):
        assert one[name] == other[name], name
    rates = [[cell["rate"] for cell in report["table"]] for report in (one, other)]
    assert rates[0] == rates[1]
    assert len(told.read_text().splitlines()) == 2 * (1 + 8)
