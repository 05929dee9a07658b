"""What blocks of data have to be, by the name in their mark `schema`."""

import csv
import io
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from app.api import schema_pages
from app.api.policy_file import parse_policy
from tests.docs.blocks import Block
from tests.docs.reference.api_page import description

ROOT = Path(__file__).parents[2]


def parse(block: Block) -> Any:
    """Raises ValueError or yaml.YAMLError for what is not of its language."""
    if block.language == "json":
        return json.loads(block.text)
    if block.language == "toml":
        return tomllib.loads(block.text)
    if block.language == "yaml":
        return list(yaml.safe_load_all(block.text))
    if block.language == "csv":
        return list(csv.reader(io.StringIO(block.text), strict=True))
    return block.text


def check(block: Block) -> None:
    """Raises what says that it does not follow its schema."""
    value = parse(block)
    name = block.marks.get("schema")
    if name is not None:
        CHECKS[name](value, block)


def _report(value: Any, block: Block) -> None:
    jsonschema.validate(value, schema_pages.report_schema())


def _policy(value: Any, block: Block) -> None:
    parse_policy(block.text.encode())


def _api(member: str) -> Callable[[Any, Block], None]:
    """A body of the HTTP API."""

    def follows(value: Any, block: Block) -> None:
        whole = description()
        jsonschema.validate(value, {**whole["components"]["schemas"][member], **_parts(whole)})

    return follows


def _parts(whole: Mapping[str, Any]) -> dict[str, Any]:
    return {"components": whole["components"]}


def _workflow(value: Any, block: Block) -> None:
    """As much as is known of it without its own schema: jobs with steps that do something."""
    (workflow,) = value
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert {"run", "uses"} & set(step), step


def _compose(value: Any, block: Block) -> None:
    """An overlay: services that docker-compose.yml has, or ones with an image of their own."""
    known = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, service in value[0]["services"].items():
        assert name in known or "image" in service or "build" in service, name


CHECKS: Mapping[str, Callable[[Any, Block], None]] = {
    "report": _report,
    "policy": _policy,
    "workflow": _workflow,
    "compose": _compose,
    **{name: _api(name) for name in ("HookOut", "JobIn", "VerdictOut")},
}
