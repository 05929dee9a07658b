"""What measuring jobs are asked for over the wire."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, StrictFloat, StrictInt

from app.api.measure_schemas import BENIGN, HARMFUL, TASK, JudgingIn, SetsIn, SubjectIn
from app.api.schemas import EXAMPLE_ID, Id, ModelId, RequestBody, within
from app.domain.evaluation import (
    DEFAULT_FAMILIES,
    FAMILIES,
    MAX_SUBJECTS,
    Budget,
    Constraints,
    EvaluateRecipe,
    FamilyName,
    FrontierRecipe,
    Sets,
)
from app.domain.method import Method
from app.jobs.submit import JobRequest

MODELS = {"base_model": "org/model-base", "chat_model": "org/model-chat"}
SETS = {"harmful": EXAMPLE_ID, "benign": EXAMPLE_ID, "task": EXAMPLE_ID}
CONSTRAINED = ("min_refusal", "max_over_refusal", "max_utility_drop")


def _example(**example: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})


class EvaluateIn(SetsIn, JudgingIn):
    """Measure the chat model and adapters on it, side by side; at least one data set."""

    model_config = _example(
        kind="evaluate",
        chat_model=MODELS["chat_model"],
        **SETS,
        adapters=[{"name": "tuned", "adapter": EXAMPLE_ID}],
    )

    kind: Literal["evaluate"]
    chat_model: ModelId
    adapters: tuple[SubjectIn, ...] = Field(default=(), max_length=MAX_SUBJECTS)

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        subjects = tuple(subject.to_domain() for subject in self.adapters)
        recipe = EvaluateRecipe(self.sets(), subjects, self.judging())
        return JobRequest(self.kind, None, None, self.chat_model, Method(), recipe=recipe)


class ConstraintsIn(RequestBody):
    """What a setting must hold, in [0, 1]."""

    min_refusal: StrictFloat | None = Field(default=None, description="share of harmful prompts")
    max_over_refusal: StrictFloat | None = Field(
        default=None, description="share of benign prompts"
    )
    max_utility_drop: StrictFloat | None = Field(
        default=None, description="from the original adapter's; with loss nats a token"
    )

    def to_domain(self) -> Constraints:
        """Raises InvalidField."""
        return Constraints(self.min_refusal, self.max_over_refusal, self.max_utility_drop)


class BudgetIn(RequestBody):
    """How much a search may spend; it ends with what it has by then."""

    evaluations: StrictInt = Field(default=Budget().evaluations, description="of one setting")
    minutes: StrictFloat | None = None

    def to_domain(self) -> Budget:
        """Raises InvalidField."""
        return Budget(self.evaluations, self.minutes)


class FrontierIn(SetsIn, JudgingIn):
    """Measure the settings of an adapter's patch, and choose one."""

    model_config = _example(
        kind="frontier",
        adapter=EXAMPLE_ID,
        **MODELS,
        **SETS,
        constraints={"min_refusal": 0.9, "max_utility_drop": 0.05},
    )

    kind: Literal["frontier"]
    adapter: str = Field(description="id of an uploaded adapter", max_length=200)
    base_model: ModelId
    chat_model: ModelId
    harmful: Id = Field(description=HARMFUL)
    benign: Id | None = Field(default=None, description=BENIGN)
    task: Id = Field(description=TASK)
    held_out: SetsIn | None = Field(
        default=None, description="of the same roles, to confirm; unset: the rows are split"
    )
    families: tuple[FamilyName, ...] = Field(
        default=DEFAULT_FAMILIES, min_length=1, max_length=len(FAMILIES)
    )
    energy: StrictFloat | None = Field(
        default=None, description="subspace, complement: 0.9 if unset"
    )
    safety_module: Id | None = Field(default=None, description="of the family salora")
    constraints: ConstraintsIn = ConstraintsIn()
    budget: BudgetIn = BudgetIn()
    seed: StrictInt = Field(default=0, description="of the split")

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        models = (self.base_model, self.chat_model)
        return JobRequest(self.kind, self.adapter, *models, Method(), recipe=self._recipe())

    def _recipe(self) -> FrontierRecipe:
        with within("constraints", CONSTRAINED):
            return FrontierRecipe(
                sets=self.sets(),
                held_out=self.held_out.sets() if self.held_out else Sets(),
                judging=self.judging(),
                families=self.families,
                energy=self.energy,
                safety_module=self.safety_module,
                constraints=self.constraints.to_domain(),
                budget=self.budget.to_domain(),
                seed=self.seed,
            )
