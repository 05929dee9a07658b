"""POST /v1/patch: upload, job and download in one call, for pipelines."""

from collections.abc import Mapping
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from app.api.access import SubmitServices
from app.api.adapters import UPLOAD_PROPERTIES
from app.api.errors import problem_of_fault
from app.api.job_schemas import JobIn, JobOut, job_path
from app.api.jobs import IdempotencyKeyHeader, check_new, settle, submit_job
from app.api.prefer import WaitDep, applied
from app.api.recipes import REQUIRE
from app.api.results import adapter_response
from app.api.services import Services
from app.api.uploads import accept, received
from app.domain.errors import InvalidField, JobCancelled, MalformedRequest
from app.domain.job import Fault, Job
from app.intake.strict_json import parse_json
from app.jobs.adapters import stored_modules
from app.jobs.check_salora import check_exported

router = APIRouter(prefix="/v1", tags=["patch"])

NUMBERS = {
    "energy": float,
    "rank": int,
    "factor": float,
    "threshold": float,
    "count": int,
    "fraction": float,
}
SELECTIONS = ("threshold", "count", "fraction", "all")
TEXTS = ("name", "projector", "rescale", "full_weights", "safety_module")
METHOD_FIELDS = (*TEXTS, "energy", "rank", "factor", *SELECTIONS)
TEXT = {"type": "string"}
PATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["chat_model"],
                    "properties": {
                        **UPLOAD_PROPERTIES,
                        "base_model": TEXT,
                        "chat_model": TEXT,
                        "method": {
                            **TEXT,
                            "description": "the method as JSON, as in POST /v1/jobs",
                        },
                        "require": {**TEXT, "enum": [REQUIRE]},
                        "gate": {
                            **TEXT,
                            "description": "the gate as JSON, as in POST /v1/jobs",
                        },
                        **dict.fromkeys(TEXTS, TEXT),
                        **{name: {"type": "number"} for name in NUMBERS},
                        "all": {"type": "boolean"},
                    },
                }
            }
        },
    }
}


@router.post(
    "/patch",
    status_code=202,
    response_model=JobOut,
    openapi_extra=PATCH_BODY,
    responses={200: {"content": {"application/zip": {}}, "description": "The patched adapter"}},
)
async def patch_adapter(
    request: Request, services: SubmitServices, wait_s: WaitDep, key: IdempotencyKeyHeader = None
) -> Response:
    """Upload and patch. With `Prefer: wait=N` the answer is the patched zip if it is ready then."""
    async with received(request, services) as upload:
        body = job_of_fields(upload.form.fields, upload.manifest.id)
        wanted, modules = body.to_domain(), stored_modules(upload.manifest)
        # Before anything is stored: a request that cannot be done leaves nothing behind.
        check_exported(upload.manifest.dropped_keys)
        await to_thread.run_sync(check_new, wanted, modules, key, services)
        await accept(upload, services)
    job = await to_thread.run_sync(submit_job, wanted, key, services)
    job = await settle(job, wait_s, services)
    response = await to_thread.run_sync(_answer, job, wait_s, services)
    response.headers.update({"Location": job_path(job.id), **applied(wait_s)})
    return response


def _answer(job: Job, wait_s: float | None, services: Services) -> Response:
    if wait_s is not None and job.status == "succeeded":
        return adapter_response(job, {}, services)
    if wait_s is not None and job.is_final:
        return problem_of_fault(job.fault or Fault.of(JobCancelled()))
    return JSONResponse(JobOut.of(job).model_dump(mode="json"), 202)


def job_of_fields(fields: Mapping[str, str], adapter: str) -> JobIn:
    """The job that the form's fields ask for, checked like one sent as JSON.

    Raises InvalidField, MalformedRequest, RequestValidationError.
    """
    method = _method(fields)
    gate = _json("gate", fields) if "gate" in fields else None
    taken = (*METHOD_FIELDS, "method", "gate")
    rest = {name: value for name, value in fields.items() if name not in taken}
    if "adapter" in rest or "kind" in rest:
        raise InvalidField(
            field="adapter" if "adapter" in rest else "kind", reason="not taken here"
        )
    try:
        return JobIn.model_validate({**rest, "adapter": adapter, "method": method, "gate": gate})
    except ValidationError as error:
        places = [{**e, "loc": ("form", *e["loc"])} for e in error.errors()]
        raise RequestValidationError(places) from None


def _method(fields: Mapping[str, str]) -> object:
    """The `method` field's JSON, or the single fields that the command line has too."""
    single = [name for name in METHOD_FIELDS if name in fields]
    if "method" in fields:
        if single:
            raise InvalidField(field=single[0], reason="give method or single fields, not both")
        return _json("method", fields)
    selections = [name for name in single if name in SELECTIONS]
    if len(selections) > 1:
        reason = f"give one selection, not {' and '.join(selections)}"
        raise InvalidField(field=selections[1], reason=reason)
    values = {name: _value(name, fields[name]) for name in single if name not in SELECTIONS}
    return {**values, **({"select": _select(selections[0], fields)} if selections else {})}


def _select(by: str, fields: Mapping[str, str]) -> dict[str, object]:
    if by != "all":
        return {"by": by, "value": _value(by, fields[by])}
    if fields["all"].lower() not in ("true", "1", ""):
        raise InvalidField(field="all", reason="is true or left out")
    return {"by": "all"}


def _value(name: str, text: str) -> object:
    if name not in NUMBERS:
        return text
    try:
        return NUMBERS[name](text)
    except ValueError:
        raise InvalidField(field=name, reason="is not a number") from None


def _json(name: str, fields: Mapping[str, str]) -> object:
    try:
        return parse_json(fields[name].encode(), depth=8)
    except ValueError:
        raise MalformedRequest(reason=f"field {name} is not valid JSON") from None
