"""PEFT's `rank_pattern` and `alpha_pattern`, resolved as PEFT does but in bounded time.

PEFT 0.21 (`peft.utils.other.get_pattern_key`) tries `re.match(rf"(.*\\.)?({key})$", module)` key by
key and takes the first that matches. Python's `re` can need exponential time on a hostile key;
RE2 is linear, and what is left of the cost (keys times modules) is metered.

Nearly all real keys are plain module names, so these are looked up, not run: in one, only the dot
means something (any character).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import re2

from app.domain.errors import ConfigRefused
from app.intake.names import shown

T = TypeVar("T")

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# What Python and RE2 both know and read alike on names of letters, digits, "_", "-" and ".".
_SHARED_ESCAPES = frozenset("wWdDsSbA.-^$|()[]{}*+?\\/")
# What both compile but read differently (or Python refuses): flags, POSIX classes, open bounds.
_READ_DIFFERENTLY = re.compile(r"\(\?(?!:)|\[\^?\[|\[:|\{,")

MAX_REGEX_KEYS = 500  # because each may hold 256 KiB of automaton; real configs have a few
MAX_PROGRAM = 2_000  # RE2 instructions; `x{1000}` needs about 1,000, a module name 50
MAX_WORK = 30_000_000  # RE2 steps; 0.4 s at the 12 ns of keys whose automaton has too many states
_STEPS_TO_COMPILE = 50  # an instruction, because it takes about 600 ns
_STEPS_PER_CALL = 500  # because one call from Python costs about 4 us whatever it does


class Patterns(Generic[T]):
    """A pattern table, compiled once. Its budget of work is for its whole life."""

    def __init__(self, table: Mapping[str, T], field: str = "rank_pattern") -> None:
        """Raises ConfigRefused naming `field` and the key that RE2 cannot run, or runs otherwise
        than Python."""
        self._field = field
        self._values = list(table.values())
        self._work = MAX_WORK
        self._plain = _PlainKeys()
        self._regex: list[tuple[int, Any]] = []  # (position in the table, compiled key)
        for position, key in enumerate(table):
            if _PLAIN_KEY.fullmatch(key):
                self._plain.add(key, position)
            else:
                self._regex.append((position, self._compiled(key)))

    def resolve(self, module: str, default: T) -> T:
        """The value of the first key that matches `module`, else `default`.

        Raises ConfigRefused when the table as a whole costs too much to resolve.
        """
        self._spend(self._plain.cost(module))
        first = self._plain.first(module)
        for position, pattern in self._regex:
            if first is not None and position > first:
                break
            self._spend(_STEPS_PER_CALL + pattern.programsize * (len(module) + 1))
            if pattern.match(module):
                first = position
                break
        return default if first is None else self._values[first]

    def _compiled(self, key: str) -> Any:
        if len(self._regex) >= MAX_REGEX_KEYS:
            self._refuse(f"more than {MAX_REGEX_KEYS} keys are regular expressions")
        escapes = set(_ESCAPE.findall(key))
        if escapes - _SHARED_ESCAPES or _READ_DIFFERENTLY.search(_ESCAPE.sub("", key)):
            self._refuse(f"the key {shown(key)} uses syntax that we do not run")
        try:
            re2.compile(key, _options())  # because `a)|(b` is only sound inside PEFT's group
            pattern = re2.compile(rf"(.*\.)?({key})$", _options())
        except re2.error:
            self._refuse(f"the key {shown(key)} is not a regular expression that RE2 can run")
        if pattern.programsize > MAX_PROGRAM:
            self._refuse(f"the key {shown(key)} is too large a regular expression")
        self._spend(_STEPS_TO_COMPILE * pattern.programsize)
        return pattern

    def _spend(self, steps: int) -> None:
        self._work -= steps
        if self._work < 0:
            self._refuse("its keys cost too much to match against the modules")

    def _refuse(self, reason: str) -> None:
        raise ConfigRefused(field=self._field, reason=reason)


def resolve(pattern: Mapping[str, T], module: str, default: T) -> T:
    """The value of the first key of `pattern` that matches `module`, else `default`.

    For one module; many want one `Patterns`. Raises ConfigRefused.
    """
    return Patterns(pattern).resolve(module, default)


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False  # because a stranger's key must not write to our stderr
    options.max_mem = 256 * 1024  # bytes for one key's program and automaton
    options.never_capture = True  # because only whether it matches is asked
    return options


class _PlainKeys:
    """Keys of letters, digits, `_`, `-` and dots, found by hashing.

    A key matches the whole name or what follows a dot in it, equal in length, where the key's dots
    stand for any character. So per length and set of dot positions there is one table.
    """

    def __init__(self) -> None:
        self._by_length: dict[int, dict[tuple[int, ...], dict[str, int]]] = {}

    def add(self, key: str, position: int) -> None:
        dots = tuple(at for at, char in enumerate(key) if char == ".")
        self._by_length.setdefault(len(key), {}).setdefault(dots, {}).setdefault(key, position)

    def cost(self, module: str) -> int:
        """Look-ups that `first` does, as RE2 steps."""
        found = (self._by_length.get(len(tail), {}) for tail in _tails(module))
        return _STEPS_PER_CALL * sum(len(tables) for tables in found)

    def first(self, module: str) -> int | None:
        """The lowest position of a key that matches."""
        found = (
            keys.get(_dotted(tail, dots))
            for tail in _tails(module)
            for dots, keys in self._by_length.get(len(tail), {}).items()
        )
        return min((position for position in found if position is not None), default=None)


def _tails(module: str) -> Iterator[str]:
    """The name, and what follows each of its dots."""
    yield module
    for at, char in enumerate(module):
        if char == ".":
            yield module[at + 1 :]


def _dotted(text: str, dots: tuple[int, ...]) -> str:
    """`text` with a dot at each of the positions."""
    chars = list(text)
    for at in dots:
        chars[at] = "."
    return "".join(chars)
