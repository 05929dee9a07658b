"""Dockerfiles, read as far as ours go: stages, and their steps with continued lines joined."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
API, WORKER = (ROOT / "docker" / f"{role}.Dockerfile" for role in ("api", "worker"))


@dataclass(frozen=True)
class Step:
    keyword: str  # RUN, COPY, ...
    flags: Mapping[str, str]  # {"from": "build"}
    text: str

    @property
    def command(self) -> list[str]:
        """Of the exec form: ["celery", ...]."""
        found: list[str] = json.loads(self.text)
        return found

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


@dataclass(frozen=True)
class Stage:
    base: str
    name: str | None
    steps: tuple[Step, ...]

    def all(self, keyword: str) -> list[Step]:
        return [step for step in self.steps if step.keyword == keyword]

    def last(self, keyword: str) -> Step:
        return self.all(keyword)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """Its ENV, of which later values may hold `$PATH`."""
        pairs = (word.partition("=") for step in self.all("ENV") for word in step.words)
        return {name: value for name, _, value in pairs}

    @property
    def healthcheck(self) -> list[str]:
        text = self.last("HEALTHCHECK").text
        found: list[str] = json.loads(text[text.index("CMD") + 3 :])
        return found


def read_stages(path: Path) -> list[Stage]:
    """With the defaults of the ARGs that stand before the first FROM put in."""
    given: dict[str, str] = {}
    stages: list[tuple[str, str | None, list[Step]]] = []
    for step in _steps(path.read_text()):
        if step.keyword == "FROM":
            base, *rest = [re.sub(r"\$\{(\w+)\}", lambda m: given[m[1]], w) for w in step.words]
            stages.append((base, rest[1] if rest else None, []))
        elif stages:
            stages[-1][2].append(step)
        else:
            name, _, value = step.text.partition("=")
            given[name] = value
    return [Stage(base, name, tuple(steps)) for base, name, steps in stages]


def _steps(text: str) -> Iterator[Step]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            keyword, _, rest = line.strip().partition(" ")
            flags, rest = _flags(rest.strip())
            yield Step(keyword.upper(), flags, rest)


def _flags(text: str) -> tuple[dict[str, str], str]:
    found = {}
    while match := re.match(r"--([a-z-]+)=(\S+)\s+", text):
        found[match[1]] = match[2]
        text = text[match.end() :]
    return found, text
