"""The command line as a user runs it: real processes, exit codes, files."""

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from peft import PeftModel
from safetensors.torch import load_file, save_file

from app.domain.adapter import CONFIG_FILE, PATCHED_FILES, WEIGHTS_FILE
from tests.factory import World
from tests.service import Service


def cli(*arguments: object, **kwargs: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from app.cli import script; script()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


def patch(world: World, out: Path, *more: object) -> "subprocess.CompletedProcess[str]":
    models = ("--base-model", world.base, "--chat-model", world.chat)
    return cli("patch", world.adapter, *models, "--out", out, *more)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_patch_writes_a_folder_that_peft_loads_and_prints_the_table(
    llama_world: World, tmp_path: Path
) -> None:
    done = patch(llama_world, tmp_path / "out", "--count", 2)
    assert done.returncode == 0, done.stderr
    assert "model.layers.0.self_attn.q_proj" in done.stdout
    assert "2 projected, 4 kept, 0 skipped" in done.stdout
    assert sorted(files_of(tmp_path / "out")) == sorted(PATCHED_FILES)
    PeftModel.from_pretrained(llama_world.chat_model(), str(tmp_path / "out"))


def test_patch_through_a_server_gives_the_same_bytes(
    llama_world: World, tmp_path: Path, service: Service
) -> None:
    local = patch(llama_world, tmp_path / "local", "--projector", "subspace", "--fraction", 0.5)
    remote = cli(
        "patch", llama_world.adapter, "--base-model", "base", "--chat-model", "chat",
        "--projector", "subspace", "--fraction", "0.5",
        "--out", tmp_path / "remote", "--server", service.url,
    )  # fmt: skip
    assert (local.returncode, remote.returncode) == (0, 0), local.stderr + remote.stderr
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert files_of(tmp_path / "local")[name] == files_of(tmp_path / "remote")[name]


def test_models_may_be_ids_under_the_model_root(llama_world: World, tmp_path: Path) -> None:
    environment = {"ADAPTER_SAFETY_MODEL_ROOT": str(llama_world.base.parent), "PATH": ""}
    done = cli(
        "patch", llama_world.adapter, "--base-model", "base", "--chat-model", "chat",
        "--out", tmp_path / "out", env=environment, cwd=Path.cwd(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("suffix", ["json", "csv", "md", "html", "sarif"])
def test_the_report_is_written_in_the_form_of_its_name(
    llama_world: World, tmp_path: Path, suffix: str
) -> None:
    report = tmp_path / f"report.{suffix}"
    assert patch(llama_world, tmp_path / "out", "--all", "--report", report).returncode == 0
    text = report.read_text()
    assert "model.layers.1.self_attn.v_proj" in text
    if suffix == "json":
        assert json.loads(text)["summary"]["projected"] == 6
    if suffix == "csv":
        assert len(list(csv.DictReader(text.splitlines()))) == 6


@pytest.mark.parametrize(
    ("more", "sign"),
    [
        (("--threshold", 0.5, "--count", 2), "count"),
        (("--threshold", 7), "threshold"),
        (("--count", 700), "700"),
        (("--count", "many"), "count"),
        (("--projector", "magic"), "projector"),
        (("--energy", 3, "--projector", "subspace"), "energy"),
        (("--report", "report.pdf"), ".json"),
        (("--sharpen",), "sharpen"),
        (("--method", "scale"), "factor"),
        (("--method", "magic"), "name"),
        (("--rescale", "twice"), "rescale"),
        (("--report", "nowhere/report.html"), "nowhere"),
    ],
)
def test_bad_usage_exits_2_and_writes_nothing(
    llama_world: World, tmp_path: Path, more: tuple[object, ...], sign: str
) -> None:
    done = patch(llama_world, tmp_path / "out", *more)
    assert done.returncode == 2
    assert sign in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_input_exits_2_and_names_the_culprit(llama_world: World, tmp_path: Path) -> None:
    missing = World(tmp_path / "nowhere", llama_world.chat, llama_world.adapter, "llama")
    done = patch(missing, tmp_path / "out")
    assert (done.returncode, "base_model" in done.stderr) == (2, True)
    done = cli("patch", tmp_path / "no-adapter", "--base-model", llama_world.base,
               "--chat-model", llama_world.chat, "--out", tmp_path / "out")  # fmt: skip
    assert (done.returncode, "no-adapter" in done.stderr) == (2, True)


def test_a_folder_that_holds_something_is_never_written_over(
    llama_world: World, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    done = patch(llama_world, tmp_path)
    assert (done.returncode, "not an empty folder" in done.stderr) == (2, True)
    assert files_of(tmp_path) == {"mine": b"mine"}


def with_nan(world: World, folder: Path) -> World:
    folder.mkdir()
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"][0, 0] = float("nan")
    save_file(tensors, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_bytes((world.adapter / CONFIG_FILE).read_bytes())
    return World(world.base, world.chat, folder, world.architecture)


def test_a_job_that_fails_exits_3_and_leaves_nothing(
    llama_world: World, tmp_path: Path, service: Service
) -> None:
    world = with_nan(llama_world, tmp_path / "adapter")
    done = patch(world, tmp_path / "out")
    assert (done.returncode, "q_proj.lora_A" in done.stderr) == (3, True)
    remote = cli("patch", world.adapter, "--base-model", "base", "--chat-model", "chat",
                 "--out", tmp_path / "out", "--server", service.url)  # fmt: skip
    assert (remote.returncode, "q_proj.lora_A" in remote.stderr) == (3, True)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_server_that_is_not_there_exits_3(llama_world: World, tmp_path: Path) -> None:
    done = patch(llama_world, tmp_path / "out", "--server", "http://127.0.0.1:9")
    assert (done.returncode, "does not answer" in done.stderr) == (3, True)


def test_inspect_prints_the_manifest_of_a_folder_and_of_an_archive(
    llama_world: World, tmp_path: Path
) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            packed.write(llama_world.adapter / name, name)
    for path in (llama_world.adapter, archive):
        done = cli("inspect", path)
        manifest = json.loads(done.stdout)
        assert (done.returncode, manifest["accepted"]) == (0, True)
        assert manifest["modules"][0]["module"] == "model.layers.0.mlp.down_proj"


def test_inspect_prints_the_refusal_and_exits_1(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x02")
    done = cli("inspect", tmp_path)
    refusal = json.loads(done.stdout)
    assert (done.returncode, refusal["accepted"]) == (1, False)
    assert refusal["type"].endswith(":pickle-refused")
    assert "safe_serialization" in refusal["detail"]


def test_up_says_what_is_wrong_instead_of_a_trace(service: Service, tmp_path: Path) -> None:
    taken = service.url.rsplit(":", 1)[1]
    done = cli("up", "--port", taken, env={"ADAPTER_SAFETY_DATA_DIR": str(tmp_path), "PATH": ""},
               cwd=Path.cwd())  # fmt: skip
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert taken in done.stderr
