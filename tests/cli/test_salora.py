"""`adapter-safety salora` as a user runs it: real processes, exit codes, folders."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from app.alignment.salora import attach
from app.cli import program
from app.domain.adapter import PATCHED_FILES, WEIGHTS_FILE
from tests.chat_models import save_chat_model
from tests.cli.test_cli import cli
from tests.factory import save_adapter
from tests.jsonl import write_jsonl
from tests.service import Service
from tests.workers.salora_world import refusals, task
from workers.training import CHECKPOINTS

SHORT = ("--max-length", 32)


@dataclass(frozen=True)
class Folders:
    chat: Path
    safety: Path  # data
    task: Path  # data
    module: Path
    kit: Path


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    done = cli("salora", *arguments)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Module and kit, made by the two commands."""
    work = tmp_path_factory.mktemp("salora")
    found = Folders(
        work / "talk",
        write_jsonl(work / "safety.jsonl", refusals()),
        write_jsonl(work / "task.jsonl", task(24)),
        work / "module",
        work / "kit",
    )
    save_chat_model(found.chat)
    run("module", found.chat, "--data", found.safety, "--rank", 6, "--out", found.module, *SHORT)
    ranks = ("--rank", 4, "--task-rank", 8)
    run("init", found.chat, "--module", found.module, "--task-data", found.task, *ranks,
        "--out", found.kit, *SHORT)  # fmt: skip
    return found


def assert_alike(one: Path, two: Path, name: str) -> None:
    """Within what another number of threads rounds otherwise."""
    first, second = (load_file(folder / name) for folder in (one, two))
    assert first.keys() == second.keys()
    for key in first:
        assert float((first[key] - second[key]).abs().max()) < 1e-4, key


def train(made: Folders, out: Path, *more: object) -> "subprocess.CompletedProcess[str]":
    settings = ("--epochs", 2, "--lr", 0.01, "--batch-size", 8, "--checkpoint-steps", 2)
    data = ("--kit", made.kit, "--data", made.task, "--out", out)
    return cli("salora", "train", made.chat, *data, *settings, *SHORT, *more)


def logits(model: torch.nn.Module) -> Tensor:
    ids = torch.randint(8, 50, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=ids).logits
    return found


def test_a_training_writes_an_adapter_that_peft_loads_and_prints_the_table(
    made: Folders, tmp_path: Path
) -> None:
    done = train(made, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "Trained adapter" in done.stdout
    assert "model.layers.1.self_attn.v_proj" in done.stdout
    assert "task data: 24 rows" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(PATCHED_FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # nothing else is left
    chat = AutoModelForCausalLM.from_pretrained(made.chat)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(made.chat), str(tmp_path / "out")
    )
    assert (logits(chat) - logits(tuned)).abs().max() > 1e-3


def test_an_interrupted_training_goes_on_where_it_was(made: Folders, tmp_path: Path) -> None:
    """What a killed one leaves is put there: its folder with a checkpoint of step 2."""
    first = train(made, tmp_path / "whole")
    assert first.returncode == 0, first.stderr
    code = (
        "import sys, workers.training as t\n"
        "kept = t._Told.on_save\n"
        "def on_save(self, args, state, control, **more):\n"
        "    kept(self, args, state, control, **more)\n"
        "    import os; os._exit(9)\n"
        "t._Told.on_save = on_save\n"
        "from app.cli import main; main()\n"
    )
    arguments = [str(part) for part in (
        "salora", "train", made.chat, "--kit", made.kit, "--data", made.task,
        "--out", tmp_path / "out", "--epochs", 2, "--lr", 0.01, "--batch-size", 8,
        "--checkpoint-steps", 2, *SHORT,
    )]  # fmt: skip

    killed = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, timeout=120
    )
    assert killed.returncode == 9
    left = tmp_path / ".out.training"
    assert (left / CHECKPOINTS / "checkpoint-2").is_dir()
    other = train(made, tmp_path / "out", "--seed", 5)
    assert other.returncode == 2
    assert "another training was interrupted" in other.stderr
    done = train(made, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "safety_report.json").read_bytes())
    assert report["training"]["resumed_from"] == 2
    assert not left.exists()
    assert_alike(tmp_path / "whole", tmp_path / "out", WEIGHTS_FILE)


def test_a_folder_that_no_training_of_ours_has_left_is_not_gone_on_from(
    made: Folders, tmp_path: Path
) -> None:
    (tmp_path / ".out.training" / CHECKPOINTS / "checkpoint-2").mkdir(parents=True)
    done = train(made, tmp_path / "out")
    assert done.returncode == 2
    assert "another training was interrupted" in done.stderr


def test_a_safety_module_beside_the_report_of_another_is_refused(
    made: Folders, tmp_path: Path
) -> None:
    shutil.copytree(made.module, tmp_path / "module")
    report = tmp_path / "module" / "safety_report.json"
    report.write_text(json.dumps({**json.loads(report.read_bytes()), "part": "0" * 64}))
    arguments = ("init", made.chat, "--module", tmp_path / "module", "--out", tmp_path / "out")
    done = cli("salora", *arguments)
    assert done.returncode == 2
    assert "has the report of another safety module" in done.stderr


def test_what_a_script_has_trained_is_exported_from_its_own_folder(
    made: Folders, tmp_path: Path
) -> None:
    chat = AutoModelForCausalLM.from_pretrained(made.chat)
    model = PeftModel.from_pretrained(chat, str(made.kit), is_trainable=True)
    attach(model, made.kit)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.05 * torch.randn_like(parameter)
    model.peft_config["default"].base_model_name_or_path = str(made.chat)
    model.save_pretrained(str(tmp_path / "trained"))
    (tmp_path / "trained" / "optimizer.pt").write_bytes(b"what a Trainer leaves there")
    run("export", "--kit", made.kit, "--adapter", tmp_path / "trained", "--out", tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(made.chat)
    exported = PeftModel.from_pretrained(again, str(tmp_path / "out"))
    assert torch.allclose(logits(exported), logits(model), atol=1e-5)
    patched = cli("patch", tmp_path / "trained", "--chat-model", made.chat, "--method", "salora",
                  "--safety-module", made.module, "--out", tmp_path / "no")  # fmt: skip
    assert patched.returncode == 2


def test_a_safety_module_is_put_on_a_trained_adapter(made: Folders, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(made.chat)
    save_adapter(model, tmp_path / "adapter", "llama", target_modules=["q_proj", "v_proj"])
    options = ("--method", "salora", "--safety-module", made.module, "--all")
    done = cli("patch", tmp_path / "adapter", "--chat-model", made.chat, *options,
               "--out", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 projected, 0 kept, 0 skipped" in done.stdout
    assert "salora, modules by all" in done.stdout


@pytest.mark.parametrize("service", ["SQLite and a folder"], indirect=True)
def test_through_a_server_the_same_is_made(made: Folders, tmp_path: Path, service: Service) -> None:
    server = ("--server", service.url)
    data = ("--data", made.safety, "--rank", 6, *SHORT)
    run("module", "talk", *data, "--out", tmp_path / "module", *server)
    assert_alike(tmp_path / "module", made.module, "safety_module.safetensors")
    ranks = ("--rank", 4, "--task-rank", 8, *SHORT)
    run("init", "talk", "--module", tmp_path / "module", "--task-data", made.task, *ranks,
        "--out", tmp_path / "kit", *server)  # fmt: skip
    assert_alike(tmp_path / "kit", made.kit, "salora.safetensors")
    settings = ("--epochs", 2, "--lr", 0.01, "--batch-size", 8, *SHORT)
    run("train", "talk", "--kit", tmp_path / "kit", "--data", made.task, *settings,
        "--out", tmp_path / "adapter", *server)  # fmt: skip
    here = train(made, tmp_path / "here")
    assert here.returncode == 0, here.stderr
    assert_alike(tmp_path / "adapter", tmp_path / "here", WEIGHTS_FILE)
    shutil.copytree(tmp_path / "kit", tmp_path / "trained")
    for name in ("salora.safetensors", "salora_config.json", "safety_report.json"):
        (tmp_path / "trained" / name).unlink()
    run("export", "--kit", tmp_path / "kit", "--adapter", tmp_path / "trained",
        "--rank", 3, "--out", tmp_path / "exported", *server)  # fmt: skip
    assert (tmp_path / "exported" / WEIGHTS_FILE).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("module", "{chat}", "--data", "{none}", "--out", "{out}"), "No such file"),
        (("module", "{chat}", "--data", "{safety}", "--rank", 0, "--out", "{out}"), "field rank"),
        (
            ("module", "{chat}", "--data", "{safety}", "--target", "quary", "--out", "{out}"),
            "quary: no module of the chat model has such a name",
        ),
        (("module", "{chat}", "--data", "{safety}", "--target", "", "--out", "{out}"), "target"),
        (("module", "{none}", "--data", "{safety}", "--out", "{out}"), "there is no folder"),
        (("module", "{chat}", "--data", "{empty}", "--out", "{out}"), "has no rows"),
        (("module", "{chat}", "--data", "{broken}", "--out", "{out}"), "line 2"),
        (("module", "{chat}", "--data", "{safety}", "--max-length", 8, "--out", "{out}"),
         "has its response beyond max_length 8"),
        (("init", "{chat}", "--module", "{none}", "--out", "{out}"), "field module"),
        (("train", "{chat}", "--kit", "{module}", "--data", "{task}", "--out", "{out}"),
         "salora_config.json that names it"),
        (("train", "{other}", "--kit", "{kit}", "--data", "{task}", "--out", "{out}"),
         "the kit was made for"),
        (("train", "{chat}", "--kit", "{kit}", "--data", "{task}", "--lr", "nan", "--out", "{out}"),
         "field learning_rate"),
        (("export", "--kit", "{kit}", "--adapter", "{none}", "--out", "{out}"), "nothing at"),
        (("module", "{chat}", "--data", "{safety}", "--out", "{kit}"), "is there already"),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence_and_exit_code_2_and_leaves_nothing(
    made: Folders, tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    save_chat_model(tmp_path / "other", seed=9)
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    (tmp_path / "broken.jsonl").write_bytes(b'{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n')
    places = {
        "chat": made.chat, "safety": made.safety, "task": made.task, "module": made.module,
        "kit": made.kit, "other": tmp_path / "other", "none": tmp_path / "none",
        "empty": tmp_path / "empty.jsonl", "broken": tmp_path / "broken.jsonl",
        "out": tmp_path / "results" / "out",
    }  # fmt: skip
    done = CliRunner().invoke(
        program(), ["salora", *(str(part).format(**places) for part in arguments)]
    )
    code = 3 if "max_length" in said else 2
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    results = tmp_path / "results"
    assert not results.exists() or not list(results.iterdir())
