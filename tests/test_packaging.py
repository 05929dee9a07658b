"""What ships: requirements, and contracts in files."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def names(lines: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9_.-]+", line)[0].lower() for line in lines if line[:1].isalpha()}


def test_the_api_image_installs_a_part_of_the_projects_own_dependencies_and_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = names(project["dependencies"]) | names(project["optional-dependencies"]["postgres"])
    image = names((ROOT / "docker" / "api-requirements.txt").read_text().splitlines())
    assert image <= own
    assert not image & {"torch", "transformers", "peft", "safetensors"}


def test_every_dependency_is_pinned_for_the_make_targets() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = names(project["dependencies"]).union(
        *(names(extras[extra]) for extra in ("postgres", "docs", "release", "dev"))
    )
    pinned = names((ROOT / "constraints.txt").read_text().splitlines())
    assert wanted - {"adapter-safety"} <= {name.replace("_", "-") for name in pinned}
