"""An adapter in a multipart body -> a staged folder and its manifest."""

import shutil
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread
from fastapi import Request

from app.api.multipart import FilePart, Form, read_form
from app.api.services import Services
from app.domain.adapter import (
    CONFIG_FILE,
    README_FILE,
    WEIGHTS_FILE,
    AdapterManifest,
    StoredAdapter,
)
from app.domain.errors import InvalidField, MissingFile, Unavailable
from app.intake.archives import unpack
from app.intake.limits import UPLOAD_LIMITS
from app.intake.manifest import read_manifest
from app.intake.names import is_pickle_name, refuse_file
from app.jobs.adapters import accept_adapter

PARTS = {"config": CONFIG_FILE, "weights": WEIGHTS_FILE, "readme": README_FILE}
ARCHIVE = "archive"
LEFT_AFTER_S = 24 * 3600.0  # because no upload takes a day
FRAMING_BYTES = 1 << 20  # room for part headers and fields beside the files


@dataclass(frozen=True)
class Received:
    """A validated upload in its staging folder."""

    form: Form
    folder: Path
    manifest: AdapterManifest


@asynccontextmanager
async def received(request: Request, services: Services) -> AsyncIterator[Received]:
    """Read and validate the body; its staging folder is gone afterwards, whatever happens.

    Raises what `read_form`, `unpack` and `read_manifest` raise, MissingFile, InvalidField, and
    Unavailable where the staging folder cannot be written.
    """
    work = services.staging_dir / f"upload-{uuid.uuid4().hex}"
    try:
        yield await _receive(request, services, work)
    finally:
        await to_thread.run_sync(lambda: shutil.rmtree(work, ignore_errors=True))


async def _receive(request: Request, services: Services, work: Path) -> Received:
    limits = _file_limits(services.max_upload_bytes)
    folder = work / "adapter"
    try:
        await to_thread.run_sync(lambda: work.mkdir(parents=True))
        form = await read_form(request, work, file_limits=limits)
        manifest = await to_thread.run_sync(_manifest, form, folder)
    except OSError as error:  # a full disk, most likely
        raise Unavailable(part="storage") from error
    return Received(form, folder, manifest)


async def accept(upload: Received, services: Services) -> tuple[StoredAdapter, bool]:
    """Store the adapter; False when it was there already. Raises QuotaExceeded."""
    return await to_thread.run_sync(
        lambda: accept_adapter(
            upload.folder,
            upload.manifest,
            records=services.records,
            artifacts=services.artifacts,
            quotas=services.quotas,
        )
    )


def sweep(staging_dir: Path) -> None:
    """Remove what uploads of killed processes left, a day after."""
    for folder in staging_dir.glob("upload-*"):
        if time.time() - folder.stat().st_mtime > LEFT_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)


def _file_limits(max_upload_bytes: int) -> dict[str, int]:
    caps = {part: UPLOAD_LIMITS.file_bytes[name] for part, name in PARTS.items()}
    return {**{k: min(v, max_upload_bytes) for k, v in caps.items()}, ARCHIVE: max_upload_bytes}


def _manifest(form: Form, folder: Path) -> AdapterManifest:
    folder.mkdir()
    if ARCHIVE in form.files:
        for part in sorted(PARTS.keys() & form.files):
            raise InvalidField(field=part, reason="send an archive or single files, not both")
        unpack(form.files[ARCHIVE].path, folder)
        return read_manifest(folder)
    _place_files(form, folder)
    known = {PARTS[part]: file.entry for part, file in form.files.items()}
    return read_manifest(folder, known=known)


def _place_files(form: Form, folder: Path) -> None:
    for part, file in form.files.items():
        _check_file_name(file)
        file.path.rename(folder / PARTS[part])
    for part in ("config", "weights"):
        if part not in form.files:
            raise MissingFile(file=f"{PARTS[part]} (multipart part '{part}', or 'archive')")


def _check_file_name(file: FilePart) -> None:
    """The name a file came with only matters when it says that the file is a pickle."""
    if file.file_name and is_pickle_name(file.file_name):
        refuse_file(file.file_name)
