"""What SaLoRA's jobs are asked for over the wire."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from app.api.schemas import EXAMPLE_ID, Id, ModelId, RequestBody
from app.domain.job import JobKind
from app.domain.method import Method
from app.domain.salora import (
    DEFAULT_TARGETS,
    MAX_TARGETS,
    Dtype,
    Encoding,
    ExportRecipe,
    Initialisation,
    InitRecipe,
    Recipe,
    SafetyModuleRecipe,
    TrainRecipe,
)
from app.jobs.submit import JobRequest

ModuleName = Annotated[str, Field(min_length=1, max_length=300)]
R = TypeVar("R", bound=SafetyModuleRecipe | InitRecipe | TrainRecipe)


def _examples(*examples: Mapping[str, object]) -> ConfigDict:
    said: list[Any] = [{"chat_model": "org/model-chat", **example} for example in examples]
    return ConfigDict(extra="forbid", json_schema_extra={"examples": said})


class _SaloraIn(RequestBody):
    chat_model: ModelId

    def _request(self, kind: JobKind, recipe: Recipe, adapter: str | None = None) -> JobRequest:
        return JobRequest(kind, adapter, None, self.chat_model, Method(), recipe=recipe)


class _RunIn(_SaloraIn):
    """Kinds that run the model over conversations."""

    chat_template: StrictBool = Field(
        default=True, description="false: prompt and response as raw text, one after the other"
    )
    max_length: StrictInt = Field(
        default=Encoding().max_length, description="tokens of a conversation; the rest is cut off"
    )
    dtype: Dtype = Field(default="auto", description="in which the model runs")

    def _recipe(self, made: type[R]) -> R:
        """Raises InvalidField."""
        given = {
            field.name: getattr(self, field.name)
            for field in fields(made)
            if field.name != "encoding"
        }
        return made(**given, encoding=Encoding(self.chat_template, self.max_length))


class SafetyModuleIn(_RunIn):
    """Find `V_s` from conversations in which the chat model refuses (arXiv 2501.01765)."""

    model_config = _examples({"kind": "safety_module", "dataset": EXAMPLE_ID})

    kind: Literal["safety_module"]
    dataset: Id
    target_modules: tuple[ModuleName, ...] = Field(
        default=DEFAULT_TARGETS,
        description="full names, or ends of names as in PEFT",
        min_length=1,
        max_length=MAX_TARGETS,
    )
    rank: StrictInt = 32

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        return self._request(self.kind, self._recipe(SafetyModuleRecipe))


class InitIn(_RunIn):
    """Make a kit: where a training starts, and the safety module that holds it."""

    model_config = _examples({"kind": "salora_init", "safety_module": EXAMPLE_ID})

    kind: Literal["salora_init"]
    safety_module: Id
    dataset: Id | None = Field(default=None, description="of the task")
    rank: StrictInt = 16
    alpha: StrictFloat | None = Field(default=None, description="the rank, if unset")
    use_rslora: StrictBool = False
    task_rank: StrictInt = 32
    initialisation: Initialisation = "salora"

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        return self._request(self.kind, self._recipe(InitRecipe))


class TrainIn(_RunIn):
    """Train a kit's adapter on a task's conversations."""

    model_config = _examples({"kind": "salora_train", "kit": EXAMPLE_ID, "dataset": EXAMPLE_ID})

    kind: Literal["salora_train"]
    kit: Id
    dataset: Id
    epochs: StrictFloat = 1.0
    learning_rate: StrictFloat = 1e-4
    batch_size: StrictInt = Field(default=16, description="conversations of one step and device")
    gradient_accumulation_steps: StrictInt = 1
    weight_decay: StrictFloat = 0.0
    warmup_steps: StrictInt = 0
    seed: StrictInt = 0
    gradient_checkpointing: StrictBool = False
    checkpoint_steps: StrictInt = Field(
        default=50, description="steps between two checkpoints that a killed job goes on from"
    )
    export_rank: StrictInt | None = Field(default=None, description="of the result; exact if unset")
    plain_lora: StrictBool = Field(
        default=False, description="without safety module and initialisation, to compare with"
    )

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        return self._request(self.kind, self._recipe(TrainRecipe))


class ExportIn(_SaloraIn):
    """Turn a trained adapter and its kit into an ordinary LoRA on the chat model's own weights."""

    model_config = _examples({"kind": "salora_export", "adapter": EXAMPLE_ID, "kit": EXAMPLE_ID})

    kind: Literal["salora_export"]
    adapter: Annotated[str, Field(description="id of an uploaded adapter", max_length=200)]
    kit: Id
    rank: StrictInt | None = Field(
        default=None, description="recompressed to it; unset: twice the kit's, and exact"
    )

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        return self._request(self.kind, ExportRecipe(self.kit, self.rank), self.adapter)
