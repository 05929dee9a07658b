"""What an operator wants done about adapters that are pushed to a hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, get_args

from app.domain.access import DEFAULT_TENANT
from app.domain.errors import InvalidField
from app.domain.evaluation import GateRecipe
from app.domain.method import Method

VerdictName = Literal["pass", "patched", "review", "inconclusive", "refused"]
"""`pass`: every module was looked at and none was to be projected. `patched`: some were, within the
policy's limits. `review`: a person should look. `inconclusive`: nothing is known. `refused`: the
gate does not take the adapter."""
ActionKind = Literal["nothing", "discussion", "comment", "pull_request", "webhook"]

VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)
ACTIONS: tuple[ActionKind, ...] = get_args(ActionKind)
HUB_ACTIONS: frozenset[ActionKind] = frozenset({"discussion", "comment", "pull_request"})
BRANCHES = "refs/heads/"
MAX_NAME_CHARS = 200  # of what adapter_config.json names; no model id is longer
MAX_WILDCARDS = 3  # in one pattern, because each multiplies the time that a match may take
_WILDCARD = re.compile(r"\{([a-z_]+)\}|(\*)")
_ADJACENT = re.compile(rf"(?:{_WILDCARD.pattern})(?:{_WILDCARD.pattern})")
_CAPTURED = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*)"


@dataclass(frozen=True)
class Repositories:
    """Which pushes are looked at; patterns as a shell's, of the whole name."""

    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    branches: tuple[str, ...] = ("main",)

    def rule(self, repo: str) -> str | None:
        """The pattern that takes the repository in; None where none does."""
        if any(fnmatchcase(repo, pattern) for pattern in self.exclude):
            return None
        return next((pattern for pattern in self.include if fnmatchcase(repo, pattern)), None)

    def has_branch(self, branch: str) -> bool:
        return any(fnmatchcase(branch, pattern) for pattern in self.branches)


@dataclass(frozen=True)
class Pair:
    """Adapters whose `base_model_name_or_path` is like `match`, and the two models behind them.

    In `match`, `*` is anything and `{name}` a part between slashes, which `base` and `chat` may
    then hold. Between two of them there is something, or where one ends would be anybody's guess
    (and a stranger's name could make the guessing last).
    """

    match: str
    base: str | None
    chat: str

    def __post_init__(self) -> None:
        names = [name for name, _ in _WILDCARD.findall(self.match) if name]
        if len(_WILDCARD.findall(self.match)) > MAX_WILDCARDS:
            raise InvalidField(field="match", reason=f"has more than {MAX_WILDCARDS} wildcards")
        if _ADJACENT.search(self.match):
            reason = "has two wildcards without anything between them"
            raise InvalidField(field="match", reason=reason)
        if len(names) != len(set(names)):
            raise InvalidField(field="match", reason="has one name twice")
        for place in ("base", "chat"):
            _check_names(place, getattr(self, place) or "", names)

    def models(self, name: str) -> tuple[str | None, str] | None:
        """Base and chat model of an adapter of `name`; None where this pair is not of it."""
        found = re.fullmatch(_regex(self.match), name) if len(name) <= MAX_NAME_CHARS else None
        if found is None:
            return None
        captured = found.groupdict()
        return self.base and _filled(self.base, captured), _filled(self.chat, captured)


def _check_names(place: str, text: str, known: list[str]) -> None:
    for name, star in _WILDCARD.findall(text):
        if star:
            raise InvalidField(field=place, reason="a model id has no *; name it, as {name}")
        if name not in known:
            raise InvalidField(field=place, reason=f"{{{name}}} is not in match")


def _regex(pattern: str) -> str:
    parts, end = [], 0
    for wildcard in _WILDCARD.finditer(pattern):
        parts.append(re.escape(pattern[end : wildcard.start()]))
        parts.append(".*" if wildcard[2] else f"(?P<{wildcard[1]}>{_CAPTURED})")
        end = wildcard.end()
    return "".join([*parts, re.escape(pattern[end:])])


def _filled(text: str, captured: Mapping[str, str]) -> str:
    return _WILDCARD.sub(lambda wildcard: captured[wildcard[1]], text)


@dataclass(frozen=True)
class Thresholds:
    """What a patch may have changed at most to end as `patched`; beyond, `review`."""

    max_projected_fraction: float = 1.0  # of all modules
    min_median_retained_energy: float = 0.0  # of the projected modules: what is left of the update
    min_kept_pdst: float = 0.0  # 1 / (1 + ||B - C B||_F) of each module that was kept

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InvalidField(field=name, reason="must lie in [0, 1]")


@dataclass(frozen=True)
class Plan:
    """The parts of a policy that decide about one push, kept with its verdict."""

    policy: str  # Policy.version
    rule: str  # the pattern of repositories
    pair: str | None  # the pattern of names; None for a base model that no pair knows
    base_model: str | None
    chat_model: str | None
    method: Method
    gate: GateRecipe | None
    thresholds: Thresholds
    actions: Mapping[VerdictName, tuple[ActionKind, ...]]
    dry_run: bool

    def actions_for(self, verdict: VerdictName) -> tuple[ActionKind, ...]:
        return tuple(kind for kind in self.actions.get(verdict, ()) if kind != "nothing")


@dataclass(frozen=True)
class Policy:
    version: str  # SHA-256 of the file, hex
    repositories: Repositories
    pairs: tuple[Pair, ...]  # the first that matches
    method: Method = field(default_factory=Method)
    gate: GateRecipe | None = None
    thresholds: Thresholds = Thresholds()
    actions: Mapping[VerdictName, tuple[ActionKind, ...]] = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT
    dry_run: bool = False

    def refusal(self, repo: str, ref: str) -> str | None:
        """Why a push is not looked at; None for one that is."""
        if not ref.startswith(BRANCHES):
            return "only branches are looked at"
        if self.repositories.rule(repo) is None:
            return "the policy does not take this repository"
        if not self.repositories.has_branch(ref.removeprefix(BRANCHES)):
            return "the policy does not take this branch"
        return None

    def plan(self, repo: str, name: str | None) -> Plan:
        """What is to be done about an adapter of a repository that says it is of the model `name`
        (which a stranger wrote)."""
        pair, models = self._pair(name or "")
        return Plan(
            policy=self.version,
            rule=self.repositories.rule(repo) or "",
            pair=pair.match if pair else None,
            base_model=models[0],
            chat_model=models[1],
            method=self.method,
            gate=self.gate,
            thresholds=self.thresholds,
            actions=self.actions,
            dry_run=self.dry_run,
        )

    def _pair(self, name: str) -> tuple[Pair | None, tuple[str | None, str | None]]:
        for pair in self.pairs:
            if models := pair.models(name):
                return pair, models
        return None, (None, None)


def check_actions(verdict: VerdictName, actions: tuple[ActionKind, ...]) -> None:
    """Raises InvalidField naming the verdict."""
    place = f"actions.{verdict}"
    if len(set(actions)) != len(actions):
        raise InvalidField(field=place, reason="has one twice")
    if "nothing" in actions and len(actions) > 1:
        raise InvalidField(field=place, reason="'nothing' stands alone")
    if {"discussion", "comment"} <= set(actions):
        raise InvalidField(field=place, reason="give discussion or comment, not both")
    if "pull_request" in actions and verdict != "patched":
        reason = "a pull request is for the verdict 'patched' alone: it has a patch within limits"
        raise InvalidField(field=place, reason=reason)
