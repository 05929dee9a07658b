"""/v1/adapters"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.api.access import ReadServices, SubmitServices
from app.api.hub_imports import (
    JSON,
    HubImport,
    ImportedAdapterOut,
    imported,
    imported_out,
    is_import,
)
from app.api.schemas import AdapterOut, AdapterPage, AdapterSummaryOut, adapter_path
from app.api.uploads import accept, received

router = APIRouter(prefix="/v1/adapters", tags=["adapters"])

UPLOAD_PROPERTIES: dict[str, Any] = {
    "config": {"type": "string", "format": "binary", "description": "adapter_config.json"},
    "weights": {"type": "string", "format": "binary", "description": "adapter_model.safetensors"},
    "readme": {"type": "string", "format": "binary", "description": "README.md, if there is one"},
    "archive": {
        "type": "string",
        "format": "binary",
        "description": "instead of the files: a zip, tar or tar.gz with them at its root",
    },
}
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": UPLOAD_PROPERTIES}},
            JSON: {"schema": HubImport.model_json_schema()},
        },
    }
}


@router.post("", status_code=201, openapi_extra=UPLOAD_BODY, response_model_exclude_unset=True)
async def upload_adapter(
    request: Request, services: SubmitServices, response: Response
) -> ImportedAdapterOut:
    """Upload an adapter, or have it taken from the hub. The same content again answers 200 with
    the same id."""
    if is_import(request):
        found = await imported(request, services)
        out, created = imported_out(found), found.created
    else:
        async with received(request, services) as upload:
            adapter, created = await accept(upload, services)
        out = ImportedAdapterOut(**AdapterOut.of(adapter).model_dump())
    response.status_code = 201 if created else 200
    response.headers["Location"] = adapter_path(out.id)
    return out


@router.get("")
def list_adapters(
    services: ReadServices,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> AdapterPage:
    """Adapters, newest first."""
    page = services.records.adapters(limit=limit, cursor=cursor)
    items = [AdapterSummaryOut.of(adapter) for adapter in page.items]
    return AdapterPage(items=items, next_cursor=page.cursor)


@router.get("/{adapter_id}")
def show_adapter(adapter_id: str, services: ReadServices) -> AdapterOut:
    """One adapter with its modules."""
    return AdapterOut.of(services.records.adapter(adapter_id))
