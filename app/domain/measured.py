"""What was measured: the tables of evaluations and frontiers. Their JSON is a contract, as
`report`'s is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.domain.described import Described
from app.domain.evaluation import FamilyName, SetRole
from app.domain.report import SCHEMA_VERSION, AdapterReference, ModelReference

Outcome = Literal["refused", "safe", "right"]
"""What a rate counts: answers that refuse, that a guard model calls safe, that are right."""
Verdict = Literal["better", "worse", "not told apart", "equal"]
Split = Literal["all", "tuning", "held out"]
Stage = Literal["screened", "measured"]
"""`screened`: likelihoods and drift alone. `measured`: answers were generated and judged."""

CLAIM = (
    "Rates are of these prompts, judged as said. They tell nothing of prompts that are unlike them."
)


@dataclass(frozen=True)
class Rate(Described):
    """A share with its Wilson 95 % interval (Wilson 1927)."""

    count: int
    n: int
    value: float
    """count / n"""
    low: float
    high: float


@dataclass(frozen=True)
class Mean(Described):
    """Over rows, with a 95 % interval by the normal approximation."""

    value: float
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Drift(Described):
    """KL(chat || subject) of next-token distributions, nats, means over rows."""

    first: float
    """of the answer's first token"""
    answer: float
    """over the tokens of the chat model's own answer"""


@dataclass(frozen=True)
class Cell(Described):
    """One subject on one role's rows."""

    subject: str
    """"chat", or an adapter's name"""
    role: SetRole
    judge: str
    n: int
    outcome: Outcome | None
    """null where the judge gives no rate"""
    rate: Rate | None
    loss: Mean | None
    """nats a token of the rows' answers, of the judge `loss`"""
    given: Rate | None
    """harmful rows with an answer: how many got exactly it"""
    gibberish: int | None
    """answers that are no language; null where none were generated"""
    empty: int | None
    drift: Drift | None
    """null for the chat model itself"""


@dataclass(frozen=True)
class Comparison(Described):
    """Two subjects on the same rows (McNemar 1947, exact; of losses the sign test)."""

    role: SetRole
    one: str
    other: str
    one_only: int
    """rows on which only `one` had the outcome (a smaller loss)"""
    other_only: int
    n: int
    p_value: float
    verdict: Verdict
    """what `other` is to `one`, at 5 %"""
    sentence: str


@dataclass(frozen=True)
class SetUse(Described):
    """Which rows were used."""

    role: SetRole
    split: Split
    dataset: str
    """StoredDataset.id"""
    rows: int
    prompts_sha256: str
    """over the prompts' tokens, in order"""
    chat_template: bool


@dataclass(frozen=True)
class SubjectUse(Described):
    """Which adapter a name stands for."""

    name: str
    adapter: str
    """its digest"""
    job: str | None


@dataclass(frozen=True)
class Measured(Described):
    """One table, and what it says."""

    table: Sequence[Cell]
    comparisons: Sequence[Comparison]


@dataclass(frozen=True)
class EvaluationReport(Described):
    chat_model: ModelReference
    subjects: Sequence[SubjectUse]
    settings: Mapping[str, Any]
    """the judging as resolved"""
    data: Sequence[SetUse]
    table: Sequence[Cell]
    comparisons: Sequence[Comparison]
    warnings: Sequence[str]
    versions: Mapping[str, str]
    kind: Literal["evaluate"] = "evaluate"
    claim: str = CLAIM
    schema_version: str = SCHEMA_VERSION

    def as_json(self) -> dict[str, Any]:
        """Plain values, `schema_version` first."""
        return {"schema_version": self.schema_version, **asdict(self)}


@dataclass(frozen=True)
class Scores(Described):
    """Of one setting on one split. Higher is better, but for `over_refusal`; null where not
    measured."""

    refusal: float | None
    """share that refuses (measured), or of which a refusal is likelier"""
    over_refusal: float | None
    utility: float | None
    """rate, or minus the mean loss"""
    drift: float | None
    """KL on harmful prompts, first token"""


@dataclass(frozen=True)
class Point(Described):
    """One setting: the first `step` of `steps` modules in the order of their cosines (or, of the
    family `scale`, the factor `1 - step / steps` on all)."""

    family: FamilyName
    step: int
    steps: int
    method: Mapping[str, Any]
    """as a patch job takes it"""
    stage: Stage
    scores: Scores
    cells: Sequence[Cell]
    """of a measured point"""
    holds: bool | None
    """the constraints, of a measured point"""


@dataclass(frozen=True)
class Spent(Described):
    """Evaluations: one setting on the tuning split, screened or measured."""

    screened: int
    measured: int
    full_sweep: int
    """what measuring every step of every family would have taken"""
    complete: bool
    """False: the budget, or the time, ended the search"""


@dataclass(frozen=True)
class Confirmation(Described):
    """The chosen setting on rows that took no part in choosing it."""

    table: Sequence[Cell]
    """chat, original, chosen"""
    comparisons: Sequence[Comparison]
    holds: bool
    """the constraints"""
    agrees: bool
    """no rate is worse than on the tuning split beyond chance (Fisher, 5 % in all)"""


@dataclass(frozen=True)
class Choice(Described):
    """The setting to take, or where none holds the constraints the nearest."""

    point: Point
    reason: str
    patch: Mapping[str, Any] | None
    """the body of POST /v1/jobs that makes it; null: nothing to do"""
    held_out: Confirmation


@dataclass(frozen=True)
class FrontierReport(Described):
    adapter: AdapterReference
    base_model: ModelReference
    chat_model: ModelReference
    settings: Mapping[str, Any]
    data: Sequence[SetUse]
    original: Sequence[Cell]
    """the adapter as it came, and the chat model, on the tuning split"""
    points: Sequence[Point]
    """by family and step"""
    frontier: Sequence[int]
    """indices of measured points that no other dominates"""
    default: int | None  # index of the published default: `approximate`, threshold 0.5
    dominating: Sequence[int]
    """indices of measured points that dominate it"""
    choice: Choice | None
    satisfied: bool
    """whether `choice` holds the constraints on both splits"""
    spent: Spent
    warnings: Sequence[str]
    versions: Mapping[str, str]
    kind: Literal["frontier"] = "frontier"
    claim: str = CLAIM
    schema_version: str = SCHEMA_VERSION

    def as_json(self) -> dict[str, Any]:
        """Plain values, `schema_version` first."""
        return {"schema_version": self.schema_version, **asdict(self)}
