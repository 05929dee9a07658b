"""What is released: whole, without what has no place in it, and able to work without a checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from app import __version__
from tests.release.dist import BadDist, Dist, build, look


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    return build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_has_what_is_no_python_too(made: Dist) -> None:
    with zipfile.ZipFile(made.wheel) as archive:
        names = set(archive.namelist())
    assert "app/web/static/index.html" in names
    assert "app/jobs/templates/report.html" in names
    assert "app/jobs/serving_rules.json" in names
    assert "app/storage/migrations/script.py.mako" in names
    assert "app/storage/migrations/versions/v0001_adapters_and_jobs.py" in names
    assert made.wheel.name.startswith(f"adapter_safety-{__version__}-")


def test_a_wheel_with_something_else_in_it_is_refused(made: Dist, tmp_path: Path) -> None:
    wheel = Path(shutil.copy(made.wheel, tmp_path))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("app/forgotten.pem", "x")
    with pytest.raises(BadDist, match=r"app/forgotten\.pem"):
        look(Dist(wheel, made.sdist))


@pytest.fixture(scope="module")
def installed(made: Dist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; what it needs comes from this one, by a path alone, so that
    the `.pth` file by which the checkout is installed here counts for nothing there."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check", str(made.wheel)]
    subprocess.run([*command, *offline], check=True, timeout=120)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def test_the_installed_wheel_alone_runs_the_demo(installed: Path, tmp_path: Path) -> None:
    where = "import app, workers; print(app.__file__, workers.__file__)"
    said = subprocess.run(
        [installed / "bin" / "python", "-c", where],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    for path in said.stdout.split():
        assert Path(path).is_relative_to(installed)
    done = subprocess.run(
        [installed / "bin" / "adapter-safety", "demo"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PEFT loads the patched adapter" in done.stdout
    report = json.loads((tmp_path / "demo-output" / "patched" / "safety_report.json").read_text())
    assert report["versions"]["adapter-safety"] == __version__
