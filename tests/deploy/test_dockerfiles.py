"""What both images promise."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

from tests.deploy.dockerfile import API, ROOT, WORKER, read_stages

BOTH = pytest.mark.parametrize("path", [API, WORKER], ids=["api", "worker"])
INDIRECT = {  # what is imported by a name that no import of ours shows, or only at times
    "httpx": "the client that app.cli.jobs imports, which the script `adapter-safety` imports",
    "packaging": "kombu wants it for Redis and does not say so",
    "psycopg": "SQLAlchemy loads it for postgresql+psycopg",
    "uvicorn": "the command that serves",
}
RUN_IN_IT = ("app.main", "app.cli.keys", "app.cli.migrate", "app.cli.gc", "app.cli.policy")


@BOTH
def test_nothing_runs_as_root_and_the_user_has_a_number(path: Path) -> None:
    """Kubernetes can tell a number from root, and no name."""
    last = read_stages(path)[-1]
    assert last.last("USER").text == "10001:10001"
    after = last.steps[last.steps.index(last.last("USER")) :]
    assert not [step for step in after if step.keyword in ("RUN", "COPY", "ADD")]


@BOTH
def test_what_builds_stays_behind(path: Path) -> None:
    build, last = read_stages(path)
    assert [step.flags for step in last.all("COPY")] == [{"from": "build"}]
    assert build.name == "build"
    assert not any("pip" in step.text for step in last.all("RUN"))


@BOTH
def test_the_base_is_an_argument_with_a_tag_so_that_a_digest_can_be_given(path: Path) -> None:
    text = path.read_text()
    assert len(re.findall(r"^FROM \$\{BASE\}", text, re.MULTILINE)) == 2
    assert {stage.base for stage in read_stages(path)} == {"python:3.12-slim-bookworm"}


@BOTH
def test_every_install_is_bound_by_the_constraints_or_takes_no_dependency(path: Path) -> None:
    commands = [
        command
        for step in read_stages(path)[0].all("RUN")
        for command in step.text.split("&&")
        if re.search(r"\bpip\b.* (install|wheel) ", command)
    ]
    assert len(commands) == 4
    for command in commands:
        assert "--constraint constraints.txt" in command or "--no-deps" in command, command


@BOTH
def test_no_layer_has_a_secret_or_names_an_index(path: Path) -> None:
    for stage in read_stages(path):
        for step in (*stage.all("ARG"), *stage.all("ENV")):
            assert not re.search(r"password|secret|token|key|https?://", step.text, re.IGNORECASE)
    assert "http" not in re.sub(r"http://127\.0\.0\.1", "", path.read_text()).replace("HTTP", "")


@BOTH
def test_only_what_is_copied_reaches_the_builder(path: Path) -> None:
    """`.dockerignore` lets through what the Dockerfiles copy: no .env, no .git."""
    rules = (ROOT / ".dockerignore").read_text().split()
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    copied = {w for step in read_stages(path)[0].all("COPY") for w in step.words[:-1]}
    assert copied <= allowed
    assert allowed == {
        "app", "workers", "docker/api-requirements.txt", "pyproject.toml", "constraints.txt",
        "README.md", "LICENSE",
    }  # fmt: skip


@BOTH
def test_what_is_written_is_written_to_the_data_folder(path: Path) -> None:
    last = read_stages(path)[-1]
    told = last.environment
    assert told["HOME"] == told["ADAPTER_SAFETY_DATA_DIR"] == last.last("VOLUME").text == "/data"
    assert told["PYTHONDONTWRITEBYTECODE"] == "1"  # because the root file system is read-only


def test_the_api_image_installs_what_the_api_imports_and_no_more() -> None:
    """Of what pyproject.toml names: whatever a line says, at the top or in a function."""
    graph = grimp.build_graph("app", "workers", include_external_packages=True)
    reached = {name for entry in RUN_IN_IT for name in graph.find_upstream_modules(entry)}
    tops = {name.partition(".")[0] for name in reached if name.partition(".")[0] != "app"}
    distributions = packages_distributions()
    imported = {_plain(found) for name in tops for found in distributions.get(name, ())}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {_plain(line) for line in project["dependencies"]}
    listed = (ROOT / "docker" / "api-requirements.txt").read_text().splitlines()
    installed = {_plain(line) for line in listed if line[:1].isalpha()}
    assert installed - INDIRECT.keys() == (imported & direct) - INDIRECT.keys()
    assert INDIRECT.keys() <= installed


def _plain(requirement: str) -> str:
    """A distribution's name without extras and version, in one spelling."""
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")  # type: ignore[index] # a name
