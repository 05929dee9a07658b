"""docker-compose.yml as compose would read it: anchors, merged maps, variables."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:\$|\{([A-Z0-9_]+)(?::-((?:[^{}]|\$\{[^{}]*\})*))?\})")


def read_compose(given: Mapping[str, str] | None = None) -> dict[str, Any]:
    """With those variables, and defaults for the others, as with a `.env` that sets them."""
    found: dict[str, Any] = _filled(yaml.safe_load(FILE.read_text()), given or {})
    return found


def variables() -> set[str]:
    """Every name that the file takes from its environment."""
    return set(re.findall(r"\$\{([A-Z0-9_]+)", FILE.read_text()))


def dockerfile_of(service: Mapping[str, Any]) -> Path | None:
    return ROOT / service["build"]["dockerfile"] if "build" in service else None


def seconds(text: str) -> float:
    """Of a duration: `1m`, `20s`."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr] # or it fails here
    return int(number) * {"s": 1, "m": 60}[unit]


def _filled(value: Any, given: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(each, given) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, given) for each in value]
    return fill(value, given) if isinstance(value, str) else value


def fill(text: str, given: Mapping[str, str]) -> str:
    """`${NAME:-default}`, where an empty value is none; a default may hold variables too."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        return given.get(match[1]) or fill(match[2] or "", given)

    return VARIABLE.sub(value, text)


def inherited() -> dict[str, str]:
    """What a process of the tests needs of their own environment, and no setting."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("ADAPTER_SAFETY_", "AWS_"))}
