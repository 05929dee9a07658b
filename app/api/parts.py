"""/v1/safety-modules and /v1/salora-kits"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.access import ReadServices
from app.api.ranges import file_response
from app.api.salora_schemas import PART_PREFIX, PartOut, PartPage, PartSummaryOut
from app.domain.salora import PART_NAMES, PartKind


@dataclass(frozen=True)
class _Form:
    """How a kind of part is given out."""

    kind: PartKind
    media_type: str
    file_name: str


SAFETY_MODULES = _Form("safety_module", "application/octet-stream", "safety_module.safetensors")
KITS = _Form("kit", "application/zip", "salora_kit.zip")


def _router(form: _Form) -> APIRouter:
    router = APIRouter(prefix=PART_PREFIX[form.kind], tags=["salora"])
    _add_records(router, form.kind)
    _add_file(router, form)
    return router


def _add_records(router: APIRouter, kind: PartKind) -> None:
    def list_parts(
        services: ReadServices,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: str | None = None,
    ) -> PartPage:
        page = services.records.parts(kind, limit=limit, cursor=cursor)
        items = [PartSummaryOut.of(part) for part in page.items]
        return PartPage(items=items, next_cursor=page.cursor)

    def show_part(part_id: str, services: ReadServices) -> PartOut:
        return PartOut.of(services.records.part(kind, part_id))

    name = PART_NAMES[kind]
    router.get("", summary=f"{name}s, newest first".capitalize())(list_parts)
    router.get("/{part_id}", summary=f"One {name} with its modules")(show_part)


def _add_file(router: APIRouter, form: _Form) -> None:
    def respond(part_id: str, request: Request, services: ReadServices) -> Response:
        return file_response(
            services.records.part(form.kind, part_id).file,
            services.artifacts,
            request_headers=request.headers,
            media_type=form.media_type,
            file_name=form.file_name,
            head=request.method == "HEAD",
        )

    router.get(
        "/{part_id}/file",
        summary=f"The {PART_NAMES[form.kind]}'s file",
        response_class=Response,
        responses={
            200: {"content": {form.media_type: {}}, "description": form.file_name},
            206: {"description": "The part that `Range` asked for"},
        },
    )(respond)
    router.head("/{part_id}/file", include_in_schema=False)(respond)


ROUTERS = (_router(SAFETY_MODULES), _router(KITS))
