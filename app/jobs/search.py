"""Which settings of a patch to look at, and which to take: the search of a frontier.

A family is a path: step 0 is the adapter as it came, the last step has every module changed. The
search screens few steps of each family by likelihoods, bisects where they bend, and has answers
generated only for settings that no other screened one beats. What is looked at costs one evaluation
each, whichever way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import NamedTuple, Protocol

from app.domain.evaluation import Constraints, FamilyName
from app.domain.measured import Scores

QUARTERS = (4, 2, 1, 3)  # screened first: the end of each family's path, then what lies between
BEND = 0.05  # of a score's whole range: what changes less between two steps is straight
SCREENED_SHARE = 0.7  # of the budget
LEAST = 30  # evaluations: a third of a small adapter's sweep would find nothing


class Setting(NamedTuple):
    family: FamilyName
    step: int


class Probe(Protocol):
    """Looks at a setting on the tuning split. May raise to end the search (`Stopped`)."""

    def screen(self, setting: Setting) -> Scores:
        """By likelihoods: `refusal` and `over_refusal` are shares, `utility` minus the loss."""

    def measure(self, setting: Setting) -> Scores:
        """By answers."""

    def is_late(self) -> bool:
        """Whether the time is up."""


@dataclass
class Search:
    """Of one adapter: `steps` modules can be changed, in each family's own order."""

    probe: Probe
    families: Sequence[FamilyName]
    steps: int
    constraints: Constraints
    most: int  # evaluations
    screened: dict[Setting, Scores] = field(default_factory=dict)
    measured: dict[Setting, Scores] = field(default_factory=dict)
    is_complete: bool = True

    @property
    def full_sweep(self) -> int:
        """Measuring every step of every family, and the adapter as it came."""
        return self.steps * len(self.families) + 1

    @property
    def budget(self) -> int:
        """At most a third of the full sweep, however much is allowed."""
        return min(self.most, max(LEAST, self.full_sweep // 3))

    @property
    def spent(self) -> int:
        return len(self.screened) + len(self.measured)

    def run(self, always: Sequence[Setting]) -> None:
        """`always` are measured whatever the screening, the budget and the clock say, because
        nothing can be said without them: the original comes first."""
        for setting in always:
            self._look_at(setting)
        self._screen_coarsely()
        self._screen_bends()
        self._measure_promising(until=self._has_found)
        self._measure_around_the_best()
        self._measure_promising(until=lambda: False)  # for the frontier between them
        self._measure_around_the_best()

    # ------------------------------------------------------------------------------- screening
    def _screen_coarsely(self) -> None:
        """Every family's end before any family's middle, so that a small budget sees them all."""
        self._screen(Setting(self.families[0], 0))
        for quarter, family in product(QUARTERS, self.families):
            if quarter != QUARTERS[0] and self._has_screened_enough():
                self.is_complete = False
                return
            self._screen(Setting(family, max(1, round(self.steps * quarter / len(QUARTERS)))))

    def _has_screened_enough(self) -> bool:
        return self.spent >= SCREENED_SHARE * self.budget

    def _screen_bends(self) -> None:
        """Halve the gap over which most changes, until nothing changes or the share is spent."""
        while not self._has_screened_enough():
            gaps = list(self._gaps())
            worst = max(gaps, default=None)
            if worst is None or worst[0] < BEND or not self._screen(worst[1]):
                return

    def _gaps(self) -> Iterator[tuple[float, Setting]]:
        """How much a gap's ends differ, and its middle."""
        spread = self._spread()
        for family in self.families:
            path = {s.step: self.screened[s] for s in self.screened if self._is_on(s, family)}
            for low, high in pairwise(sorted(path)):
                if high - low > 1:
                    change = _change(path[low], path[high], spread)
                    yield change, Setting(family, (low + high) // 2)

    def _is_on(self, setting: Setting, family: FamilyName) -> bool:
        """The adapter as it came is on every family's path."""
        return setting.family == family or setting.step == 0

    def _spread(self) -> float:
        """Between the best and the worst utility that was screened."""
        known = [s.utility for s in self.screened.values() if s.utility is not None]
        return (max(known) - min(known)) or 1.0 if known else 1.0

    def _screen(self, setting: Setting) -> bool:
        """False where nothing more may be spent."""
        if setting not in self.screened:
            if not self._may_go_on():
                return False
            self.screened[setting] = self.probe.screen(setting)
        return True

    # ------------------------------------------------------------------------------- measuring
    def _measure_promising(self, until: Callable[[], bool]) -> None:
        """The most promising first."""
        while not until() and (promising := self._promising()):
            if not self._measure(min(promising, key=self._promise)):
                return

    def _promising(self) -> list[Setting]:
        """Not measured yet, and beaten by no other screened one: but for those that answers have
        shown to fall short, because a likelihood may see refusals where there are none."""
        standing = {s: scores for s, scores in self.screened.items() if not self._fell_short(s)}
        return [s for s in standing if s not in self.measured and not beaten(s, standing)]

    def _fell_short(self, setting: Setting) -> bool:
        return setting in self.measured and self._shortfall(setting) > 0

    def _shortfall(self, setting: Setting) -> float:
        return shortfall(self.measured[setting], self.original, self.constraints)

    def _has_found(self) -> bool:
        """Whether something holds what is asked for."""
        asked = self.constraints != Constraints()
        return asked and any(self._shortfall(setting) == 0 for setting in self.measured)

    def _promise(self, setting: Setting) -> tuple[bool, float]:
        """Those that seem to refuse enough come first, the most useful of them ahead."""
        scores, wanted = self.screened[setting], self.constraints.min_refusal or 0.5
        return (scores.refusal or 0.0) < wanted, -(scores.utility or 0.0)

    def _measure_around_the_best(self) -> None:
        """Halve the gaps beside the best one, which moves where a better one is found."""
        while (best := self.best()) and (nearer := self._untried_beside(best)):
            if not self._measure(nearer):
                return

    def _untried_beside(self, setting: Setting) -> Setting | None:
        """The middle of a gap between it and the next measured step of its family."""
        steps = sorted(s.step for s in self.measured if self._is_on(s, setting.family))
        for low, high in pairwise(steps):
            if setting.step in (low, high) and high - low > 1:
                return Setting(setting.family, (low + high) // 2)
        return None

    def _measure(self, setting: Setting) -> bool:
        """False where nothing more may be spent."""
        if setting.step and setting not in self.measured and not self._may_go_on():
            return False
        self._look_at(setting)
        return True

    def _look_at(self, setting: Setting) -> None:
        if setting.step == 0:
            setting = Setting(self.families[0], 0)  # the same adapter in every family
        if setting not in self.measured:
            self.measured[setting] = self.probe.measure(setting)

    def _may_go_on(self) -> bool:
        if self.spent >= self.budget or self.probe.is_late():
            self.is_complete = False
            return False
        return True

    # -------------------------------------------------------------------------------- choosing
    @property
    def original(self) -> Scores:
        return self.measured[Setting(self.families[0], 0)]

    def best(self) -> Setting | None:
        """Of what was measured: of those that hold the constraints the most useful, else the
        nearest to them."""
        return min(self.measured, key=self._rank) if self.measured else None

    def _rank(self, setting: Setting) -> tuple[float, float, float, int]:
        scores, short = self.measured[setting], self._shortfall(setting)
        asked = self.constraints != Constraints()
        good = _value(scores) if not asked else (scores.utility or 0.0)
        return (short, -good, -(scores.refusal or 0.0), setting.step)

    def front(self) -> list[Setting]:
        """Measured settings that no other beats."""
        return [s for s in self.measured if not beaten(s, self.measured)]


def _value(scores: Scores) -> float:
    """Where nothing is asked for: what is gained and lost, each at the same price."""
    return (scores.refusal or 0.0) + (scores.utility or 0.0) - (scores.over_refusal or 0.0)


def shortfall(scores: Scores, original: Scores, constraints: Constraints) -> float:
    """The sum of what is lacking of each constraint; 0 where all hold."""
    lacking = 0.0
    if constraints.min_refusal is not None:
        lacking += max(0.0, constraints.min_refusal - (scores.refusal or 0.0))
    if constraints.max_over_refusal is not None:
        lacking += max(0.0, (scores.over_refusal or 0.0) - constraints.max_over_refusal)
    if constraints.max_utility_drop is not None:
        drop = (original.utility or 0.0) - (scores.utility or 0.0)
        lacking += max(0.0, drop - constraints.max_utility_drop)
    return lacking if lacking > 1e-9 else 0.0  # because 0.95 - 0.93 is more than 0.02


def beaten(setting: Setting, by: Mapping[Setting, Scores]) -> bool:
    return any(dominates(scores, by[setting]) for other, scores in by.items() if other != setting)


def dominates(one: Scores, other: Scores) -> bool:
    """At least as good in everything, and better in something."""
    pairs = list(zip(_goods(one), _goods(other), strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _goods(scores: Scores) -> tuple[float, float, float]:
    return (scores.refusal or 0.0, scores.utility or 0.0, -(scores.over_refusal or 0.0))


def _change(one: Scores, other: Scores, spread: float) -> float:
    """How much two screened steps differ, each score over its whole range."""
    refusal = abs((one.refusal or 0.0) - (other.refusal or 0.0))
    utility = abs((one.utility or 0.0) - (other.utility or 0.0)) / spread
    return max(refusal, utility)
