"""The policy file: read strictly, and again when it has changed."""

import hashlib
import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.api.policy_schemas import PolicyIn
from app.domain.errors import InvalidField
from app.domain.policy import Policy
from app.domain.verdict_errors import PolicyRefused

logger = logging.getLogger(__name__)

MAX_BYTES = 256 << 10
UNION_MEMBERS = ("float", "int")  # what pydantic puts after the place of a number
Stamp = tuple[int, int, int]  # what changes when a file does


class _Loader(yaml.SafeLoader):
    """No duplicate keys, of which the last would win; no aliases, which can grow without bound."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _refused(self.peek_event(), "aliases are not taken")  # type: ignore[no-untyped-call] # PyYAML's own
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused(key, "a key is a word")
            if key.value in seen:
                raise _refused(key, f"the key {key.value[:100]!r} is there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _refused(where: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, where.start_mark)


def parse_policy(raw: bytes) -> Policy:
    """Raises PolicyRefused, which names the place in the file, as `pairs[2].chat`."""
    if len(raw) > MAX_BYTES:
        raise PolicyRefused(field="the file", reason=f"is larger than {MAX_BYTES} bytes")
    try:
        return PolicyIn.model_validate(_yaml(raw)).to_domain(hashlib.sha256(raw).hexdigest())
    except ValidationError as error:
        first = error.errors()[0]
        raise PolicyRefused(field=_place(first["loc"]), reason=first["msg"]) from None
    except InvalidField as error:
        raise PolicyRefused(**error.facts) from None


def _yaml(raw: bytes) -> object:
    try:
        loader = _Loader(raw)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        raise PolicyRefused(field=place, reason=error.problem or "is not YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "is not YAML"
        raise PolicyRefused(field="the file", reason=reason) from None


def _place(location: Sequence[object]) -> str:
    """`("pairs", 2, "chat")` -> `pairs[2].chat`."""
    known = [part for part in location if part not in UNION_MEMBERS]
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in known)
    return "".join(parts).removeprefix(".") or "the file"


def read_policy(path: Path) -> Policy:
    """Raises PolicyRefused, also for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return parse_policy(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise PolicyRefused(field="the file", reason=error.strerror or "is not there") from error


@dataclass(frozen=True)
class PolicyState:
    """What is in force, and what is wrong with the file as it is now."""

    policy: Policy | None
    loaded_at: datetime | None
    problem: PolicyRefused | None


class PolicyFile:
    """The policy in force: the last version of the file that could be used."""

    def __init__(self, path: Path, read: Callable[[Path], Policy] = read_policy) -> None:
        self._path, self._read = path, read
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._is_read = False
        self._state = PolicyState(None, None, None)

    def state(self) -> PolicyState:
        """Costs one look at the file's times while it stays the same."""
        with self._lock:
            stamp = self._look()
            if not self._is_read or stamp != self._stamp:
                self._stamp, self._is_read = stamp, True
                self._state = self._again()
            return self._state

    def policy(self) -> Policy | None:
        return self.state().policy

    def _look(self) -> Stamp | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _again(self) -> PolicyState:
        try:
            policy = self._read(self._path)
        except PolicyRefused as error:
            logger.error("the policy file is refused, the one before stays in force: %s", error)
            return PolicyState(self._state.policy, self._state.loaded_at, error)
        logger.info("the policy is now version %s", policy.version)
        return PolicyState(policy, datetime.now(UTC), None)
