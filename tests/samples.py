"""Domain nouns to keep: each call makes another."""

import hashlib
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.domain.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    FileEntry,
    StoredAdapter,
    StoredModule,
    adapter_id,
)
from app.domain.dataset import StoredDataset
from app.domain.evaluation import MeasureRecipe
from app.domain.job import AnyRecipe, Job, JobKind, MeasureKind, SaloraKind
from app.domain.method import Method, Selection
from app.domain.salora import Part, PartKind, PartModule, Recipe
from app.storage.records import SqlRecords


def an_adapter(**changes: Any) -> StoredAdapter:
    files = {CONFIG_FILE: entry_of(uuid.uuid4().bytes), WEIGHTS_FILE: entry_of(b"weights")}
    adapter = StoredAdapter(
        id=adapter_id(files),
        created_at=datetime.now(UTC),
        files=files,
        modules=(StoredModule("model.layers.0.self_attn.q_proj", 8, 16.0, 64, 32, "BF16"),),
        dropped_keys=("auto_mapping",),
        base_model_name="meta/base\x00\ud800",  # what JSON can say and PostgreSQL text cannot
    )
    return replace(adapter, **changes)


def a_job(adapter: StoredAdapter, **changes: Any) -> Job:
    job = Job(
        id=uuid.uuid4().hex,
        kind="patch",
        status="queued",
        adapter=adapter.id,
        base_model="org/base",
        chat_model="org/chat",
        method=Method(projector="subspace", energy=0.8, select=Selection("count", 3.0)),
        created_at=datetime.now(UTC),
    )
    return replace(job, **changes)


def a_kept_job(records: SqlRecords, **changes: Any) -> Job:
    adapter = an_adapter(base_model_name="org/chat")  # as every adapter that comes by HTTP can say
    records.add_adapter(adapter)
    return records.add_job(a_job(adapter, **changes), None)


def a_dataset(**changes: Any) -> StoredDataset:
    file = entry_of(uuid.uuid4().bytes)
    dataset = StoredDataset(
        id=file.sha256,
        created_at=datetime.now(UTC),
        file=file,
        rows=2,
        prompt_characters=30,
        response_characters=50,
    )
    return replace(dataset, **changes)


def a_part(kind: PartKind = "safety_module", **changes: Any) -> Part:
    file = entry_of(uuid.uuid4().bytes)
    part = Part(
        kind=kind,
        id=hashlib.sha256(file.sha256.encode()).hexdigest(),
        created_at=datetime.now(UTC),
        chat_model="org/chat",
        chat_digest="0" * 64,
        file=file,
        report=entry_of(uuid.uuid4().bytes),
        modules=(PartModule("model.layers.0.self_attn.q_proj", 64, 32, 8),),
        made_of={"rank": 8, "dataset": "1" * 64},
    )
    return replace(part, **changes)


def a_salora_job(kind: SaloraKind, recipe: Recipe, **changes: Any) -> Job:
    return _of_recipe(kind, recipe, **changes)


def a_measure_job(kind: MeasureKind, recipe: MeasureRecipe, **changes: Any) -> Job:
    return _of_recipe(kind, recipe, **changes)


def _of_recipe(kind: JobKind, recipe: AnyRecipe, **changes: Any) -> Job:
    job = Job(
        id=uuid.uuid4().hex,
        kind=kind,
        status="queued",
        adapter=None,
        base_model=None,
        chat_model="org/chat",
        method=Method(),
        recipe=recipe,
        created_at=datetime.now(UTC),
    )
    return replace(job, **changes)


def entry_of(content: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(content).hexdigest(), len(content))


def a_file(folder: Path, content: bytes) -> tuple[Path, FileEntry]:
    path = folder / f"source-{uuid.uuid4().hex}"
    path.write_bytes(content)
    return path, entry_of(content)
