"""Accept an adapter: validate it, store its files by content, keep a record."""

from datetime import UTC, datetime
from pathlib import Path

from app.domain.access import NO_QUOTAS, Quotas
from app.domain.adapter import AdapterManifest, StoredAdapter, StoredModule
from app.jobs.ports import Artifacts, Records


def accept_adapter(
    folder: Path,
    manifest: AdapterManifest,
    *,
    records: Records,
    artifacts: Artifacts,
    quotas: Quotas = NO_QUOTAS,
) -> tuple[StoredAdapter, bool]:
    """Keep a validated adapter whose files lie in `folder`; False when it was there already.

    The files go first: a record never names a file that is not there. Raises QuotaExceeded.
    """
    for name, file in manifest.files.items():
        artifacts.put(folder / name, file)
    created = records.add_adapter(_stored(manifest), most_bytes=quotas.stored_bytes)
    for name, file in manifest.files.items():
        if not artifacts.has(file):  # taken away as nobody's, a moment before the record named it
            artifacts.put(folder / name, file)
    return records.adapter(manifest.id), created


def _stored(manifest: AdapterManifest) -> StoredAdapter:
    return StoredAdapter(
        id=manifest.id,
        created_at=datetime.now(UTC),
        files=manifest.files,
        modules=stored_modules(manifest),
        dropped_keys=manifest.dropped_keys,
        base_model_name=manifest.base_model_name,
    )


def stored_modules(manifest: AdapterManifest) -> tuple[StoredModule, ...]:
    """What a model must fit, without the tensors."""
    return tuple(StoredModule.of(module) for module in manifest.modules)
