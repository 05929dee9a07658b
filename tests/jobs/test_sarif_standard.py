"""Reports as SARIF against the standard's own schema, and against a validator that others use.

Both are in the npm package @microsoft/sarif-multitool, which `make test` fetches into `.node`.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from app.jobs.render import FORMATS
from tests.jobs.every_report import every

PACKAGES = Path(__file__).parents[2] / ".node" / "node_modules" / "@microsoft"
REPORTS = every()


@pytest.fixture(scope="module")
def multitool() -> Path:
    """The package's folder for this system."""
    found = sorted(PACKAGES.glob("sarif-multitool-*/sarif-2.1.0.json"))
    if found:
        return found[0].parent
    why = "@microsoft/sarif-multitool is not in .node: `make test` fetches it where npm is"
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def schema(multitool: Path) -> Draft202012Validator:
    text = json.loads((multitool / "sarif-2.1.0.json").read_text())
    return Draft202012Validator(text, format_checker=Draft202012Validator.FORMAT_CHECKER)


@pytest.mark.parametrize("name", REPORTS)
def test_a_log_of_every_kind_follows_the_standards_schema(
    name: str, schema: Draft202012Validator
) -> None:
    schema.validate(json.loads(FORMATS["sarif"][1](REPORTS[name])))


def test_the_schema_refuses_what_is_not_sarif(schema: Draft202012Validator) -> None:
    log = json.loads(FORMATS["sarif"][1](REPORTS["patch"]))
    log["runs"][0]["results"][0]["level"] = "grave"
    assert not schema.is_valid(log)


def test_the_multitool_finds_nothing_but_that_the_tool_has_no_page(
    multitool: Path, tmp_path: Path
) -> None:
    for name, report in REPORTS.items():
        (tmp_path / f"{name}.sarif").write_text(FORMATS["sarif"][1](report), encoding="utf-8")
    assert validated(multitool, tmp_path) == {"SARIF2005"}


def test_the_multitool_finds_an_index_that_leads_nowhere(multitool: Path, tmp_path: Path) -> None:
    log = json.loads(FORMATS["sarif"][1](REPORTS["patch"]))
    log["runs"][0]["results"][0]["ruleIndex"] = 99
    (tmp_path / "broken.sarif").write_text(json.dumps(log))
    assert validated(multitool, tmp_path) > {"SARIF2005"}


def validated(multitool: Path, folder: Path) -> set[str]:
    """The rules of the standard and of GitHub's code scanning that the folder's logs offend."""
    program, found = multitool / "Sarif.Multitool", folder / "found.json"
    program.chmod(0o755)
    command = [program, "validate", folder / "*.sarif", "--rule-kind", "Sarif;Ghas"]
    options = ["--output", found, "--log", "ForceOverwrite"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert found.exists(), done.stdout + done.stderr
    (run,) = json.loads(found.read_text())["runs"]
    assert run["invocations"][0]["executionSuccessful"], done.stdout
    return {each["ruleId"] for each in run["results"]}
