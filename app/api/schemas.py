"""What goes over the wire. Requests forbid unknown fields, so that a typing error is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from app.domain.adapter import LayerType, ListedAdapter, StoredAdapter
from app.domain.errors import InvalidField

EXAMPLE_ADAPTER = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
EXAMPLE_ID = EXAMPLE_ADAPTER
Id = Annotated[str, Field(max_length=200, examples=[EXAMPLE_ID])]
ModelId = Annotated[str, Field(max_length=200, examples=["org/model-base", "org/model-chat"])]
Number = StrictFloat | StrictInt  # because "0.4" and true are not numbers


class RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid")


@contextmanager
def within(place: str, only: tuple[str, ...] | None = None) -> Iterator[None]:
    """A field at fault (of `only`) is told as one that lies in `place`. Raises InvalidField."""
    try:
        yield
    except InvalidField as error:
        field, reason = str(error.facts["field"]), error.facts["reason"]
        if only is not None and field not in only:
            raise
        raise InvalidField(field=f"{place}.{field}", reason=reason) from None


class FileOut(BaseModel):
    sha256: str
    size_bytes: int


class ModuleOut(BaseModel):
    module: str
    rank: int
    alpha: float
    d_out: int
    d_in: int
    dtype: str
    layer_type: LayerType = Field(description="embedding: d_in is the vocabulary")
    dora: bool


class AdapterOut(BaseModel):
    id: str = Field(description="SHA-256 over the files' names and digests")
    created_at: datetime
    size_bytes: int
    files: dict[str, FileOut]
    base_model_name_or_path: str | None
    dropped_config_keys: list[str]
    modules: list[ModuleOut]

    @classmethod
    def of(cls, adapter: StoredAdapter) -> "AdapterOut":
        return cls(
            id=adapter.id,
            created_at=adapter.created_at,
            size_bytes=adapter.size_bytes,
            files={
                name: FileOut(sha256=file.sha256, size_bytes=file.size_bytes)
                for name, file in adapter.files.items()
            },
            base_model_name_or_path=adapter.base_model_name,
            dropped_config_keys=list(adapter.dropped_keys),
            modules=[
                ModuleOut(
                    module=m.name,
                    rank=m.rank,
                    alpha=m.alpha,
                    d_out=m.d_out,
                    d_in=m.d_in,
                    dtype=m.dtype,
                    layer_type=m.layer_type,
                    dora=m.dora,
                )
                for m in adapter.modules
            ],
        )


class AdapterSummaryOut(BaseModel):
    """An adapter in a listing: without its modules, which may be thousands."""

    id: str
    created_at: datetime
    size_bytes: int
    modules: int
    base_model_name_or_path: str | None

    @classmethod
    def of(cls, adapter: ListedAdapter) -> "AdapterSummaryOut":
        return cls(
            id=adapter.id,
            created_at=adapter.created_at,
            size_bytes=adapter.size_bytes,
            modules=adapter.modules,
            base_model_name_or_path=adapter.base_model_name,
        )


class AdapterPage(BaseModel):
    items: list[AdapterSummaryOut]
    next_cursor: str | None


def adapter_path(adapter_id: str) -> str:
    return f"/v1/adapters/{adapter_id}"
