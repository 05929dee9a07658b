"""Rows to domain nouns and back: SaLoRA's recipes, checkpoints, data sets, parts."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from app.domain.adapter import FileEntry
from app.domain.dataset import StoredDataset, TokenCount
from app.domain.job import Checkpointed, JobKind
from app.domain.salora import (
    Encoding,
    ExportRecipe,
    InitRecipe,
    ListedPart,
    Part,
    PartModule,
    Recipe,
    SafetyModuleRecipe,
    TrainRecipe,
)

Json = dict[str, Any]

RECIPES: Mapping[JobKind, type[Recipe]] = {
    "safety_module": SafetyModuleRecipe,
    "salora_init": InitRecipe,
    "salora_train": TrainRecipe,
    "salora_export": ExportRecipe,
}


def to_salora_recipe(kind: JobKind, value: Mapping[str, Any]) -> Recipe:
    """The recipe as it was before `asdict`."""
    fields = dict(value)
    if "encoding" in fields:
        fields["encoding"] = Encoding(**fields["encoding"])
    if "target_modules" in fields:
        fields["target_modules"] = tuple(fields["target_modules"])
    return RECIPES[kind](**fields)


def checkpoint_json(checkpoint: Checkpointed | None) -> Json | None:
    """A checkpoint as JSON."""
    if checkpoint is None:
        return None
    return {"step": checkpoint.step, "file": file_json(checkpoint.file)}


def to_checkpoint(value: Mapping[str, Any]) -> Checkpointed:
    """The checkpoint in `checkpoint_json`'s form."""
    return Checkpointed(value["step"], to_file(value["file"]))


def dataset_values(dataset: StoredDataset, tenant: str, now: datetime) -> Json:
    """The columns of a data set, `seq` aside."""
    return {
        "tenant": tenant,
        "id": dataset.id,
        "created_at": dataset.created_at,
        "uploaded_at": now,
        "size_bytes": dataset.file.size_bytes,
        "file": file_json(dataset.file),
        "rows": dataset.rows,
        "prompt_characters": dataset.prompt_characters,
        "response_characters": dataset.response_characters,
        "tokens": tokens_json(dataset.tokens),
        "unanswered": dataset.unanswered,
    }


def tokens_json(tokens: Mapping[str, TokenCount]) -> Json:
    """Token counts by the model's id."""
    return {model: asdict(count) for model, count in tokens.items()}


def to_dataset(row: Row[Any]) -> StoredDataset:
    """The data set in a row of `datasets`."""
    return StoredDataset(
        id=row.id,
        created_at=row.created_at,
        file=to_file(row.file),
        rows=row.rows,
        prompt_characters=row.prompt_characters,
        response_characters=row.response_characters,
        tokens={model: TokenCount(**count) for model, count in row.tokens.items()},
        unanswered=row.unanswered,
    )


def part_values(part: Part, tenant: str, now: datetime) -> Json:
    """The columns of a part, `seq` aside."""
    return {
        "tenant": tenant,
        "kind": part.kind,
        "id": part.id,
        "created_at": part.created_at,
        "used_at": now,
        "chat_model": part.chat_model,
        "chat_digest": part.chat_digest,
        "size_bytes": part.file.size_bytes,
        "module_count": len(part.modules),
        "file": file_json(part.file),
        "report": file_json(part.report),
        "modules": [asdict(module) for module in part.modules],
        "made_of": dict(part.made_of),
    }


def to_part(row: Row[Any]) -> Part:
    """The part in a row of `parts`."""
    return Part(
        kind=row.kind,
        id=row.id,
        created_at=row.created_at,
        chat_model=row.chat_model,
        chat_digest=row.chat_digest,
        file=to_file(row.file),
        report=to_file(row.report),
        modules=tuple(PartModule(**module) for module in row.modules),
        made_of=row.made_of,
    )


def to_listed_part(row: Row[Any]) -> ListedPart:
    """The short form in a row of `parts`, read without its modules."""
    return ListedPart(
        kind=row.kind,
        id=row.id,
        created_at=row.created_at,
        chat_model=row.chat_model,
        chat_digest=row.chat_digest,
        size_bytes=row.size_bytes,
        modules=row.module_count,
    )


def file_json(file: FileEntry) -> Json:
    """A file by its digest and size."""
    return {"sha256": file.sha256, "size_bytes": file.size_bytes}


def to_file(value: Mapping[str, Any]) -> FileEntry:
    """The file in `file_json`'s form."""
    return FileEntry(sha256=value["sha256"], size_bytes=value["size_bytes"])
