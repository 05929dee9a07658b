"""The search of a frontier, on curves that are known everywhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from app.domain.evaluation import DEFAULT_FAMILIES, Constraints, FamilyName
from app.domain.measured import Scores
from app.jobs.search import Search, Setting, dominates, shortfall

STEPS = 42
DEFAULT = Setting("approximate", 21)
ORIGINAL = Setting("approximate", 0)
NEVER = 10**9  # looks

Curve = Callable[[FamilyName, float], tuple[float, float]]
"""Family and share of its modules that are changed -> refusals, utility."""


@dataclass
class Curves:
    """A probe of which every setting is known."""

    curve: Curve
    steps: int = STEPS
    late_after: int = NEVER  # looks
    is_fooled: bool = False  # every setting seems to refuse everything
    screened: list[Setting] = field(default_factory=list)
    measured: list[Setting] = field(default_factory=list)

    def screen(self, setting: Setting) -> Scores:
        """Likelihoods: refusals as they are measured, utility on another scale."""
        self.screened.append(setting)
        scores = self.scores(setting)
        seen = 1.0 if self.is_fooled else scores.refusal
        return Scores(seen, None, 3 * (scores.utility or 0.0) - 4, 0.1)

    def measure(self, setting: Setting) -> Scores:
        self.measured.append(setting)
        return self.scores(setting)

    def is_late(self) -> bool:
        return len(self.screened) + len(self.measured) >= self.late_after

    def scores(self, setting: Setting) -> Scores:
        refusal, utility = self.curve(setting.family, setting.step / self.steps)
        return Scores(round(refusal, 3), None, round(utility, 3), 0.1)


def approximate(share: float) -> tuple[float, float]:
    """The published projector removes what it touches: refusals come as the skill goes."""
    return share, 1 - share


def monotone(family: FamilyName, share: float) -> tuple[float, float]:
    """Refusals come back at the price of skill, cheapest with `scale`."""
    if family != "scale":
        return approximate(share)
    return min(1.0, 1.5 * share), 1 - share**4


def cliff(family: FamilyName, share: float) -> tuple[float, float]:
    """Nothing moves, but for `subspace`, which does it all within one module, and loses its skill
    soon after."""
    if family != "subspace":
        return 0.3 * share, 1 - share
    return (0.95 if share > 0.61 else 0.1), (0.9 if share < 0.7 else 0.2)


def flat(family: FamilyName, share: float) -> tuple[float, float]:
    """Whatever is done, nothing changes."""
    return 0.5, 0.8


def only_complement(family: FamilyName, share: float) -> tuple[float, float]:
    """As in the experiments: refusals by `complement` alone at a usable skill."""
    return (share, 1 - 0.1 * share) if family == "complement" else (0.4 * share, 1 - share)


def nothing_works(family: FamilyName, share: float) -> tuple[float, float]:
    """Each family loses its skill before it refuses."""
    return 0.3 * share, 1 - share


WANTED = Constraints(min_refusal=0.8, max_utility_drop=0.2)


def searched(
    curve: Curve,
    families: Sequence[FamilyName] = DEFAULT_FAMILIES,
    *,
    constraints: Constraints = WANTED,
    steps: int = STEPS,
    most: int = 10_000,
    late_after: int = NEVER,
    is_fooled: bool = False,
) -> tuple[Search, Curves]:
    probe = Curves(curve, steps, late_after, is_fooled)
    search = Search(probe, families, steps, constraints, most)
    search.run([Setting(families[0], 0), Setting(families[0], steps // 2)])
    return search, probe


CURVES = (monotone, cliff, flat, only_complement, nothing_works)


@pytest.mark.parametrize("curve", CURVES)
def test_a_search_never_costs_more_than_a_third_of_a_full_sweep(curve: Curve) -> None:
    search, probe = searched(curve)
    assert search.full_sweep == 42 * 5 + 1
    assert search.spent == len(probe.screened) + len(probe.measured)
    assert search.spent <= search.full_sweep / 3


@pytest.mark.parametrize("curve", CURVES)
def test_no_setting_is_screened_or_measured_twice(curve: Curve) -> None:
    _, probe = searched(curve)
    for looked in (probe.screened, probe.measured):
        assert len(looked) == len(set(looked))
        assert [setting for setting in looked if setting.step == 0] == [ORIGINAL]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("most", [10, 20, 10_000])
def test_the_adapter_as_it_came_and_the_published_default_are_always_measured(
    curve: Curve, most: int
) -> None:
    _, probe = searched(curve, most=most)
    assert probe.measured[:2] == [ORIGINAL, DEFAULT]


@pytest.mark.parametrize("curve", [monotone, cliff, only_complement])
def test_it_finds_a_setting_that_holds_the_constraints_and_dominates_the_default(
    curve: Curve,
) -> None:
    search, _ = searched(curve)
    best = search.best()
    assert best
    assert shortfall(search.measured[best], search.original, WANTED) == 0
    assert dominates(search.measured[best], search.measured[DEFAULT])


@pytest.mark.parametrize(
    ("curve", "family"),
    [(monotone, "scale"), (cliff, "subspace"), (only_complement, "complement")],
)
def test_the_best_is_nearly_the_best_of_a_full_sweep(curve: Curve, family: FamilyName) -> None:
    search, probe = searched(curve)
    every = [Setting(f, step) for f in DEFAULT_FAMILIES for step in range(STEPS + 1)]
    known = {setting: probe.scores(setting) for setting in every}
    holds = [s for s in every if shortfall(known[s], known[ORIGINAL], WANTED) == 0]
    best = search.best()
    assert best in holds
    assert best.family == family
    most_useful = max(known[setting].utility or 0 for setting in holds)
    assert (known[best].utility or 0) >= most_useful - 0.02


@pytest.mark.parametrize(
    ("curve", "family"), [(monotone, "scale"), (only_complement, "complement")]
)
def test_likelihoods_that_see_refusals_everywhere_do_not_hide_the_family_that_works(
    curve: Curve, family: FamilyName
) -> None:
    """The adapter as it came is the most useful, and seems to refuse as well as any."""
    search, _ = searched(curve, is_fooled=True)
    best = search.best()
    assert best
    assert best.family == family
    assert shortfall(search.measured[best], search.original, WANTED) == 0


def test_where_nothing_changes_the_adapter_stays_as_it_came() -> None:
    search, probe = searched(flat, constraints=Constraints())
    assert search.best() == ORIGINAL
    assert len(probe.screened) == 1 + 4 * 5  # because nothing bends
    assert search.is_complete
    assert set(probe.measured) >= {ORIGINAL, DEFAULT}


def test_where_nothing_holds_the_constraints_the_best_is_the_nearest() -> None:
    search, _ = searched(nothing_works)
    best = search.best()
    assert best
    short = {s: shortfall(scores, search.original, WANTED) for s, scores in search.measured.items()}
    assert short[best] == min(short.values()) > 0


@pytest.mark.parametrize("late_after", [0, 1, 3, 20, 40])
def test_a_search_that_is_late_ends_with_what_it_has(late_after: int) -> None:
    """The original and the default all the same, because nothing can be said without them."""
    search, probe = searched(monotone, late_after=late_after)
    assert not search.is_complete
    assert search.spent == max(2, late_after)
    assert probe.measured[:2] == [ORIGINAL, DEFAULT]
    assert search.best() in search.measured
    assert search.original == probe.scores(ORIGINAL)


def test_the_smallest_budget_still_measures_more_than_the_default() -> None:
    """And has seen the end of each family."""
    search, probe = searched(only_complement, most=10)
    assert search.spent == 10
    assert not search.is_complete
    assert {s.family for s in probe.screened} == set(DEFAULT_FAMILIES)
    assert len(probe.measured) > 2
    assert search.best() == Setting("complement", STEPS)


@pytest.mark.parametrize("curve", CURVES)
def test_the_same_curves_are_searched_the_same_way(curve: Curve) -> None:
    (one, looks), (other, again) = searched(curve), searched(curve)
    assert (looks.screened, looks.measured) == (again.screened, again.measured)
    assert one.best() == other.best()
    assert one.front() == other.front()


@pytest.mark.parametrize("families", [("complement",), ("scale", "prune"), DEFAULT_FAMILIES])
def test_an_adapter_of_one_module_is_looked_at_from_both_ends(
    families: Sequence[FamilyName],
) -> None:
    search, probe = searched(only_complement, families, steps=1)
    ends = {Setting(families[0], 0)} | {Setting(family, 1) for family in families}
    assert set(probe.screened) == ends
    assert search.is_complete
    assert search.spent <= 2 * search.full_sweep
    if "complement" in families:
        assert search.best() == Setting("complement", 1)


def test_one_family_alone_is_searched() -> None:
    search, probe = searched(only_complement, ("complement",))
    assert {setting.family for setting in (*probe.screened, *probe.measured)} == {"complement"}
    assert search.best() == Setting("complement", 34)  # the first at or above 0.8 is 33.6 of 42


def test_what_no_other_beats_is_the_front() -> None:
    search, _ = searched(only_complement)
    front = search.front()
    assert search.best() in front
    for setting in front:
        scores = search.measured.values()
        assert not any(dominates(other, search.measured[setting]) for other in scores)


def test_dominating_takes_something_better_and_nothing_worse() -> None:
    one = Scores(refusal=0.5, over_refusal=0.1, utility=0.9, drift=None)
    assert not dominates(one, one)
    assert dominates(Scores(0.5, 0.05, 0.9, None), one)
    assert not dominates(Scores(0.6, 0.2, 0.9, None), one)


def test_what_is_lacking_is_summed_over_the_constraints() -> None:
    original = Scores(refusal=0.2, over_refusal=0.0, utility=0.95, drift=None)
    scores = Scores(refusal=0.7, over_refusal=0.3, utility=0.93, drift=None)
    assert shortfall(scores, original, Constraints(max_utility_drop=0.02)) == 0
    found = shortfall(scores, original, Constraints(0.8, 0.1, 0.01))
    assert found == pytest.approx(0.1 + 0.2 + 0.01)
