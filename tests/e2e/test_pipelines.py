"""The shell script of docs/pipelines.md, as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.factory import World

PAGE = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()
COMMAND = f"#!/bin/sh\nexec {sys.executable} -c 'from app.cli import script; script()' \"$@\"\n"


def run(folder: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    (script,) = re.findall(r"```sh\n(#!.*?)```", PAGE, re.DOTALL)
    for name, text in (("check-adapter.sh", script), ("adapter-safety", COMMAND)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    given = [str(folder / "check-adapter.sh"), *map(str, arguments), str(folder / "out")]
    environment = {**os.environ, "PATH": path}
    return subprocess.run(given, capture_output=True, text=True, env=environment)


def test_a_sound_adapter_ends_with_0_and_is_patched(llama_world: World, tmp_path: Path) -> None:
    done = run(tmp_path, llama_world.adapter, llama_world.base, llama_world.chat)
    assert done.returncode == 0, done.stderr
    assert "modules projected" in done.stdout
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_what_is_no_adapter_ends_with_2(llama_world: World, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(llama_world.adapter, broken)
    (broken / "adapter_config.json").write_text("{")
    assert run(tmp_path, broken, llama_world.base, llama_world.chat).returncode == 2


def test_the_workflow_is_yaml_with_a_job() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    steps = yaml.safe_load(block)["jobs"]["patch"]["steps"]
    assert any("check-adapter.sh" in step.get("run", "") for step in steps)
