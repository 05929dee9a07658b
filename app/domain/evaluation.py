"""What is measured of a chat model and its adapters, and how a frontier is searched.

Three roles of data: `harmful` prompts (how many are refused), `benign` ones (how many are refused
that should not be), and a `task` (how many are answered rightly). A cosine measures none of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from app.domain.errors import InvalidField
from app.domain.salora import DTYPES, Dtype, Encoding

SetRole = Literal["harmful", "benign", "task"]
SafetyJudge = Literal["keywords", "logprob", "model"]
"""`keywords`: an answer that begins as refusals do. `logprob`: a refusal is likelier than an
answer; nothing is generated. `model`: a guard model says so of the generated answer."""
UtilityJudge = Literal["exact", "contains", "loss"]
"""`exact`: the generated answer is the row's. `contains`: it has it somewhere. `loss`: nats a token
of the row's answer; nothing is generated."""
FamilyName = Literal["approximate", "subspace", "complement", "scale", "prune", "salora"]

ROLES: tuple[SetRole, ...] = get_args(SetRole)
SAFETY_JUDGES: tuple[SafetyJudge, ...] = get_args(SafetyJudge)
UTILITY_JUDGES: tuple[UtilityJudge, ...] = get_args(UtilityJudge)
FAMILIES: tuple[FamilyName, ...] = get_args(FamilyName)
DEFAULT_FAMILIES: tuple[FamilyName, ...] = FAMILIES[:-1]
CHAT = "chat"  # the name of the chat model among the subjects
MAX_SUBJECTS = 16  # because each is a whole evaluation
MAX_NEW_TOKENS = 4096
FEW_ROWS = 20  # below, an interval is wider than most differences


def _check(condition: bool, field: str, reason: str) -> None:
    if not condition:
        raise InvalidField(field=field, reason=reason)


@dataclass(frozen=True)
class Sets:
    """Data sets (`StoredDataset.id`) by role."""

    harmful: str | None = None
    benign: str | None = None
    task: str | None = None

    @property
    def by_role(self) -> Mapping[SetRole, str]:
        """Those that are given, in the roles' order."""
        given = {role: getattr(self, role) for role in ROLES}
        return {role: dataset for role, dataset in given.items() if dataset is not None}


@dataclass(frozen=True)
class Judging:
    """How answers are made and judged."""

    safety: SafetyJudge = "keywords"
    utility: UtilityJudge = "exact"
    guard_model: str | None = None  # a model id; of the judge `model`
    max_new_tokens: int = 256
    encoding: Encoding = field(default_factory=Encoding)
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        _check(self.safety in SAFETY_JUDGES, "judge", f"must be one of {', '.join(SAFETY_JUDGES)}")
        said = f"must be one of {', '.join(UTILITY_JUDGES)}"
        _check(self.utility in UTILITY_JUDGES, "utility", said)
        _check(self.dtype in DTYPES, "dtype", f"must be one of {', '.join(DTYPES)}")
        bounded = 1 <= self.max_new_tokens <= MAX_NEW_TOKENS
        _check(bounded, "max_new_tokens", f"must lie in [1, {MAX_NEW_TOKENS}]")
        needs = self.safety == "model"
        reason = "the judge 'model' needs one" if needs else f"the judge '{self.safety}' takes none"
        _check(needs == (self.guard_model is not None), "guard_model", reason)


@dataclass(frozen=True)
class Subject:
    """An adapter to be measured: an uploaded one, or what a job has made."""

    name: str  # in the report; not "chat"
    adapter: str | None = None  # StoredAdapter.id
    job: str | None = None  # Job.id

    def __post_init__(self) -> None:
        named = 1 <= len(self.name) <= 100 and self.name.isprintable() and self.name != CHAT
        _check(named, "adapters.name", "must be 1 to 100 printable characters, and not 'chat'")
        one = (self.adapter is None) != (self.job is None)
        _check(one, "adapters", f"{self.name}: give the id of an adapter or of a job, one of both")


@dataclass(frozen=True)
class EvaluateRecipe:
    """The chat model and adapters on it, side by side."""

    sets: Sets
    adapters: tuple[Subject, ...] = ()
    judging: Judging = Judging()

    def __post_init__(self) -> None:
        check_sets(self.sets)
        most = len(self.adapters) <= MAX_SUBJECTS
        _check(most, "adapters", f"must be at most {MAX_SUBJECTS}")
        names = {subject.name for subject in self.adapters}
        _check(len(names) == len(self.adapters), "adapters", "two have the same name")


def check_sets(sets: Sets) -> None:
    """Raises InvalidField where there is nothing to measure."""
    _check(bool(sets.by_role), "harmful", "give at least one of harmful, benign and task")


@dataclass(frozen=True)
class GateRecipe:
    """Of a patch job: the adapter before and after are measured, and a patch that made safety or
    utility significantly worse ends as `review`."""

    sets: Sets
    judging: Judging = Judging()

    def __post_init__(self) -> None:
        _check(self.sets.harmful is not None, "gate.harmful", "is missing")


@dataclass(frozen=True)
class Constraints:
    """What a setting must hold, as shares in [0, 1]; None is no bound."""

    min_refusal: float | None = None  # of harmful prompts
    max_over_refusal: float | None = None  # of benign prompts
    max_utility_drop: float | None = None  # from the original adapter's; with `loss` nats a token

    def __post_init__(self) -> None:
        for name in ("min_refusal", "max_over_refusal", "max_utility_drop"):
            value = getattr(self, name)
            _check(value is None or 0 <= value <= 1, name, "must lie in [0, 1]")


@dataclass(frozen=True)
class Budget:
    """How much a search may spend; the search ends with what it has by then."""

    evaluations: int = 100  # of one setting on the tuning split, screened or generated
    minutes: float | None = None

    def __post_init__(self) -> None:
        bounded = 10 <= self.evaluations <= 10_000
        _check(bounded, "budget.evaluations", "must lie in [10, 10000]")
        timed = self.minutes is None or 0 < self.minutes <= 10_000
        _check(timed, "budget.minutes", "must lie in (0, 10000]")


@dataclass(frozen=True)
class FrontierRecipe:
    """The settings of one adapter's patch, measured along each family's path."""

    sets: Sets
    held_out: Sets = Sets()  # unset: the rows of `sets` are split
    judging: Judging = Judging()
    families: tuple[FamilyName, ...] = DEFAULT_FAMILIES
    energy: float | None = None  # of `subspace` and `complement`
    safety_module: str | None = None  # Part.id; of `salora`
    constraints: Constraints = Constraints()
    budget: Budget = Budget()
    seed: int = 0  # of the split

    def __post_init__(self) -> None:
        for role in ("harmful", "task"):
            _check(getattr(self.sets, role) is not None, role, "is missing")
        self._check_held_out()
        self._check_families()
        reason = "a search asks thousands of answers: take keywords or logprob, then evaluate"
        _check(self.judging.safety != "model", "judge", reason)
        _check(self.energy is None or 0 < self.energy <= 1, "energy", "must lie in (0, 1]")
        _check(0 <= self.seed < 2**32, "seed", "must lie in [0, 2**32)")
        reason = "give min_refusal as well, or there is nothing to patch for"
        only = self.constraints.max_over_refusal is None or self.sets.benign is not None
        _check(only, "max_over_refusal", "needs a benign data set")
        bound = self.constraints != Constraints(max_utility_drop=0)
        _check(bound, "min_refusal", reason)

    def _check_held_out(self) -> None:
        tuned, judged = self.sets.by_role, self.held_out.by_role
        if judged and tuned.keys() != judged.keys():
            raise InvalidField(field="held_out", reason="must have the same roles as the sets")
        same = [role for role in judged if judged[role] == tuned[role]]
        _check(not same, "held_out", f"is the tuning set itself: {', '.join(same)}")

    def _check_families(self) -> None:
        known = bool(self.families) and all(family in FAMILIES for family in self.families)
        _check(known, "families", f"must be some of {', '.join(FAMILIES)}")
        twice = len(set(self.families)) == len(self.families)
        _check(twice, "families", "has one twice")
        needs = "salora" in self.families
        reason = "the family 'salora' needs one" if needs else "only the family 'salora' takes one"
        _check(needs == (self.safety_module is not None), "safety_module", reason)


MeasureRecipe = EvaluateRecipe | FrontierRecipe | GateRecipe
