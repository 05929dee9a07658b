"""What /v1/alignments takes and gives."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from app.api.schemas import EXAMPLE_ADAPTER, ModelId, Number
from app.domain.alignment import ListedPair
from app.domain.errors import InvalidField
from app.domain.method import Method, ProjectorName
from app.jobs.submit import JobRequest

MODELS: dict[str, Any] = {"base_model": "org/model-base", "chat_model": "org/model-chat"}
ModuleName = Annotated[str, Field(min_length=1, max_length=300, examples=["q_proj"])]


class AlignmentIn(BaseModel):
    """Two models, which of their modules, and for which projector."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                MODELS,
                {**MODELS, "modules": ["q_proj", "v_proj"], "projector": "subspace"},
                {**MODELS, "adapter": EXAMPLE_ADAPTER},
            ]
        },
    )

    base_model: ModelId
    chat_model: ModelId
    adapter: str | None = Field(
        default=None, description="the modules of this uploaded adapter", max_length=200
    )
    modules: list[ModuleName] | None = Field(
        default=None,
        description="full names, or ends of names as in PEFT's target_modules; without modules and "
        "adapter: all that both models have, embeddings and output heads aside",
        min_length=1,
        max_length=1000,
    )
    projector: ProjectorName = "approximate"
    energy: Number | None = Field(default=None, description="subspace, complement: 0.9 if unset")
    rank: StrictInt | None = Field(default=None, description="subspace, complement: or directions")

    def to_domain(self) -> JobRequest:
        """Raises InvalidField."""
        if self.adapter is not None and self.modules is not None:
            raise InvalidField(field="modules", reason="give adapter or modules, not both")
        return JobRequest(
            kind="alignment",
            adapter=self.adapter,
            base_model=self.base_model,
            chat_model=self.chat_model,
            method=Method(self.projector, self.energy, self.rank),
            modules=None if self.modules is None else tuple(self.modules),
        )


class PairModelOut(BaseModel):
    id: str = Field(description="the name it was last used under")
    digest: str


class PairOut(BaseModel):
    """What one cache holds of one pair of models."""

    cache: str = Field(description="names the cache; workers that share a folder share it")
    base_model: PairModelOut
    chat_model: PairModelOut
    modules: int = Field(description="entries, one for each module and form")
    size_bytes: int
    hits: int = Field(description="modules that jobs found there")
    misses: int = Field(description="modules that jobs had to compute")
    last_used: datetime

    @classmethod
    def of(cls, pair: ListedPair) -> "PairOut":
        usage = pair.usage
        return cls(
            cache=usage.cache_id,
            base_model=PairModelOut(id=usage.base_model, digest=usage.base_digest),
            chat_model=PairModelOut(id=usage.chat_model, digest=usage.chat_digest),
            modules=usage.modules,
            size_bytes=usage.size_bytes,
            hits=usage.hits,
            misses=usage.misses,
            last_used=pair.last_used,
        )


class PairPage(BaseModel):
    items: list[PairOut]
    next_cursor: str | None
