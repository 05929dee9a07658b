"""What goes over the wire of data sets, safety modules and kits."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from app.domain.dataset import StoredDataset
from app.domain.salora import ListedPart, Part, PartKind

PART_PREFIX: Mapping[PartKind, str] = {
    "safety_module": "/v1/safety-modules",
    "kit": "/v1/salora-kits",
}


class TokenCountOut(BaseModel):
    prompt: int
    response: int


class DatasetOut(BaseModel):
    id: str = Field(description="SHA-256 of the file")
    created_at: datetime
    size_bytes: int
    rows: int
    unanswered: int = Field(description="rows without a response; trainings take none")
    prompt_characters: int
    response_characters: int
    tokens: dict[str, TokenCountOut] = Field(
        description="by the chat model whose tokenizer counted, over the plain texts"
    )
    links: dict[str, str]

    @classmethod
    def of(cls, dataset: StoredDataset) -> "DatasetOut":
        return cls(
            id=dataset.id,
            created_at=dataset.created_at,
            size_bytes=dataset.file.size_bytes,
            rows=dataset.rows,
            unanswered=dataset.unanswered,
            prompt_characters=dataset.prompt_characters,
            response_characters=dataset.response_characters,
            tokens={
                model: TokenCountOut(prompt=count.prompt, response=count.response)
                for model, count in dataset.tokens.items()
            },
            links={"self": dataset_path(dataset.id)},
        )


class DatasetPage(BaseModel):
    items: list[DatasetOut]
    next_cursor: str | None


class MadeForOut(BaseModel):
    id: str
    digest: str


class PartModuleOut(BaseModel):
    name: str = Field(description="full name in the chat model")
    d_out: int
    d_in: int
    rank: int


class _PartOut(BaseModel):
    id: str
    created_at: datetime
    chat_model: MadeForOut
    size_bytes: int
    links: dict[str, str]


class PartOut(_PartOut):
    modules: list[PartModuleOut]
    made_of: dict[str, Any] = Field(description="what its id says it was made of")

    @classmethod
    def of(cls, part: Part) -> "PartOut":
        modules = [
            PartModuleOut(name=m.name, d_out=m.d_out, d_in=m.d_in, rank=m.rank)
            for m in part.modules
        ]
        return cls(
            id=part.id,
            created_at=part.created_at,
            chat_model=MadeForOut(id=part.chat_model, digest=part.chat_digest),
            size_bytes=part.file.size_bytes,
            links=_part_links(part.kind, part.id),
            modules=modules,
            made_of=dict(part.made_of),
        )


class PartSummaryOut(_PartOut):
    """A part in a listing: without its modules."""

    modules: int

    @classmethod
    def of(cls, part: ListedPart) -> "PartSummaryOut":
        return cls(
            id=part.id,
            created_at=part.created_at,
            chat_model=MadeForOut(id=part.chat_model, digest=part.chat_digest),
            size_bytes=part.size_bytes,
            links=_part_links(part.kind, part.id),
            modules=part.modules,
        )


class PartPage(BaseModel):
    items: list[PartSummaryOut]
    next_cursor: str | None


def dataset_path(dataset_id: str) -> str:
    return f"/v1/datasets/{dataset_id}"


def part_path(kind: PartKind, part_id: str) -> str:
    return f"{PART_PREFIX[kind]}/{part_id}"


def _part_links(kind: PartKind, part_id: str) -> dict[str, str]:
    path = part_path(kind, part_id)
    return {"self": path, "file": f"{path}/file"}
