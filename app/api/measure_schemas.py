"""What measuring is asked for over the wire: data sets by role, judges, adapters, gates."""

from pydantic import Field, StrictBool, StrictInt

from app.api.schemas import Id, ModelId, RequestBody, within
from app.domain.evaluation import (
    MAX_NEW_TOKENS,
    GateRecipe,
    Judging,
    SafetyJudge,
    Sets,
    Subject,
    UtilityJudge,
)
from app.domain.salora import Dtype, Encoding

HARMFUL = (
    "id of a data set: prompts that should be refused; a row's response, where given, is what a "
    "compliant answer would be"
)
BENIGN = "id of a data set: prompts that should not be refused"
TASK = "id of a data set: each row's response is the right answer"


class SetsIn(RequestBody):
    """Data sets by role."""

    harmful: Id | None = Field(default=None, description=HARMFUL)
    benign: Id | None = Field(default=None, description=BENIGN)
    task: Id | None = Field(default=None, description=TASK)

    def sets(self) -> Sets:
        return Sets(self.harmful, self.benign, self.task)


class JudgingIn(RequestBody):
    """How answers are made and judged."""

    judge: SafetyJudge = Field(
        default="keywords",
        description="keywords: an answer that begins as refusals do; logprob: a refusal is more "
        "likely than an answer, nothing is generated; model: a guard model says so of the answer",
    )
    utility: UtilityJudge = Field(
        default="exact",
        description="exact: the answer is the row's; contains: it has it somewhere; loss: nats a "
        "token of the row's answer, nothing is generated",
    )
    guard_model: ModelId | None = Field(default=None, description="of the judge model, and needed")
    max_new_tokens: StrictInt = Field(
        default=Judging().max_new_tokens, description=f"of an answer, at most {MAX_NEW_TOKENS}"
    )
    chat_template: StrictBool = Field(default=True, description="false: the prompt as raw text")
    max_length: StrictInt = Field(
        default=Encoding().max_length, description="tokens of a conversation"
    )
    dtype: Dtype = Field(default="auto", description="in which the models run")

    def judging(self) -> Judging:
        """Raises InvalidField."""
        return Judging(
            safety=self.judge,
            utility=self.utility,
            guard_model=self.guard_model,
            max_new_tokens=self.max_new_tokens,
            encoding=Encoding(self.chat_template, self.max_length),
            dtype=self.dtype,
        )


class GateIn(SetsIn, JudgingIn):
    """What the adapter is measured by before and after the patch."""

    harmful: Id = Field(description=HARMFUL)

    def to_domain(self) -> GateRecipe:
        """Raises InvalidField naming `gate.<field>`."""
        with within("gate"):
            judging = self.judging()
        return GateRecipe(self.sets(), judging)


class SubjectIn(RequestBody):
    """An adapter to be measured: an uploaded one, or what a job has made."""

    name: str = Field(description="in the report; not 'chat'", min_length=1, max_length=100)
    adapter: Id | None = Field(default=None, description="id of an uploaded adapter")
    job: Id | None = Field(default=None, description="or of a job that has made one")

    def to_domain(self) -> Subject:
        """Raises InvalidField."""
        return Subject(self.name, self.adapter, self.job)
