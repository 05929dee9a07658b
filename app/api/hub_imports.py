"""An adapter named in a JSON body, to be taken from the hub."""

from typing import Annotated, Any

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel, Field, ValidationError

from app.api.schemas import AdapterOut, RequestBody
from app.api.services import Services
from app.domain.errors import InvalidField, MalformedRequest, TooLarge
from app.domain.hub_errors import HubNotWanted
from app.jobs.import_adapter import Imported, Importer

JSON = "application/json"
MAX_BODY_BYTES = 1 << 14


class HubRepository(RequestBody):
    repo_id: Annotated[str, Field(max_length=200, examples=["org/adapter"])]
    revision: Annotated[
        str | None, Field(max_length=128, description="a branch, tag or commit; else the main one")
    ] = None


class HubImport(RequestBody):
    hub: HubRepository


class HubCommitOut(BaseModel):
    repo_id: str
    revision: str = Field(description="the commit (SHA) that the adapter was taken from")


class ImportedAdapterOut(AdapterOut):
    hub: HubCommitOut | None = Field(
        default=None, description="where this very request has taken it from, if from a hub"
    )


def is_import(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON


async def imported(request: Request, services: Services) -> Imported:
    """Raises MalformedRequest, InvalidField, HubNotWanted, ImportsBusy, and what `Importer.run`
    raises."""
    asked = _parsed(await _body(request)).hub
    if services.hub is None:
        raise HubNotWanted
    with services.imports.taken(services.tenant):
        return await to_thread.run_sync(_importer(services).run, asked.repo_id, asked.revision)


def _importer(services: Services) -> Importer:
    if services.hub is None:
        raise HubNotWanted
    return Importer(
        hub=services.hub,
        records=services.records,
        artifacts=services.artifacts,
        staging_dir=services.staging_dir,
        max_upload_bytes=services.max_upload_bytes,
        quotas=services.quotas,
    )


def imported_out(found: Imported) -> ImportedAdapterOut:
    source = HubCommitOut(repo_id=found.commit.repo_id, revision=found.commit.sha)
    return ImportedAdapterOut(**AdapterOut.of(found.adapter).model_dump(), hub=source)


async def _body(request: Request) -> bytes:
    """Raises TooLarge, as soon as it is."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(what="the body", limit_bytes=MAX_BODY_BYTES)
    return bytes(body)


def _parsed(body: bytes) -> HubImport:
    try:
        return HubImport.model_validate_json(body)
    except ValidationError as error:
        first: Any = error.errors()[0]
        if first["type"] == "json_invalid":
            raise MalformedRequest(reason="the body is not valid JSON") from None
        field = ".".join(map(str, first["loc"])) or "body"
        raise InvalidField(field=field, reason=first["msg"]) from None
