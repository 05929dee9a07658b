"""A data set in a body, bare or as multipart -> a staged file and its digest."""

import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread
from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

from app.api.multipart import BATCH_BYTES, FilePart, FileSink, read_form
from app.api.services import Services
from app.domain.dataset import Responses, StoredDataset
from app.domain.errors import InvalidField, MissingFile, Unavailable
from app.jobs.datasets import accept_dataset

PART = "data"
JSON_LINES = ("application/jsonl", "application/x-ndjson", "application/json-lines")
"""No text/plain: a page of another site may send that without being asked."""


@asynccontextmanager
async def received(request: Request, services: Services) -> AsyncIterator[FilePart]:
    """The body as a file; its staging folder is gone afterwards, whatever happens.

    Raises what `read_form` raises, MissingFile, InvalidField, TooLarge, 415 for another media type,
    and Unavailable where the staging folder cannot be written.
    """
    work = services.staging_dir / f"upload-{uuid.uuid4().hex}"
    try:
        yield await _receive(request, services.max_dataset_bytes, work)
    finally:
        await to_thread.run_sync(lambda: shutil.rmtree(work, ignore_errors=True))


async def accept(
    upload: FilePart, chat_model: str | None, responses: Responses, services: Services
) -> tuple[StoredDataset, bool]:
    """Validate and store the data set; False when it was there already. Raises what
    `accept_dataset` raises."""
    return await to_thread.run_sync(
        lambda: accept_dataset(
            upload.path,
            upload.entry,
            chat_model,
            responses=responses,
            records=services.records,
            artifacts=services.artifacts,
            models=services.models,
            quotas=services.quotas,
        )
    )


async def _receive(request: Request, limit_bytes: int, work: Path) -> FilePart:
    media, _ = parse_options_header(request.headers.get("content-type"))
    try:
        await to_thread.run_sync(lambda: work.mkdir(parents=True))
        if media == b"multipart/form-data":
            return await _of_form(request, limit_bytes, work)
        if media.decode("latin-1") in JSON_LINES:
            return await _of_body(request, limit_bytes, work)
    except OSError as error:  # a full disk, most likely
        raise Unavailable(part="storage") from error
    raise HTTPException(415, f"send {', '.join(JSON_LINES)} or multipart/form-data")


async def _of_form(request: Request, limit_bytes: int, work: Path) -> FilePart:
    form = await read_form(request, work, file_limits={PART: limit_bytes})
    for field in form.fields:
        raise InvalidField(field=field, reason="is not taken here")
    if PART not in form.files:
        raise MissingFile(file=f"the data set (multipart part '{PART}')")
    return form.files[PART]


async def _of_body(request: Request, limit_bytes: int, work: Path) -> FilePart:
    path = work / "data.jsonl"
    file = await to_thread.run_sync(path.open, "wb")
    sink = FileSink("the data set", path, None, limit_bytes, file)
    try:
        await _feed(request, sink)
        return await to_thread.run_sync(sink.finish)
    finally:
        file.close()


async def _feed(request: Request, sink: FileSink) -> None:
    batch = bytearray()
    async for chunk in request.stream():
        batch += chunk
        if len(batch) >= BATCH_BYTES or not chunk:  # the last chunk is empty
            await to_thread.run_sync(sink.write, bytes(batch))
            batch.clear()
