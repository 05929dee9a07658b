"""The one place that knows HTTP status codes: every error becomes an RFC 9457 problem.

`type` is `urn:adapter-safety:problem:<code>` and stable; the error's facts travel as extension
members. Nothing of the server (paths, traces, versions) is in a problem.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.domain.access_errors import Denied, TooMany, Unauthenticated
from app.domain.errors import (
    AdapterSafetyError,
    Conflict,
    InvalidField,
    JobFault,
    MalformedRequest,
    NotFound,
    Refused,
    TooLarge,
    Unavailable,
)
from app.domain.job import Fault
from app.domain.verdict_errors import HookSecretMissing

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
PROBLEM_IN_SCOPE = "adapter_safety.problem"
"""Where a request's scope has the code of the problem that it was answered with."""
RETRY_AFTER_S = 5

STATUS: Mapping[type[AdapterSafetyError], int] = {
    MalformedRequest: 400,
    TooLarge: 413,
    Refused: 422,
    Unauthenticated: 401,
    HookSecretMissing: 401,
    Denied: 403,
    TooMany: 429,
    NotFound: 404,
    Conflict: 409,
    JobFault: 422,
    Unavailable: 503,
    AdapterSafetyError: 500,
}
"""By the nearest class of the error tree."""


_TEXT = {"type": "string"}
PROBLEM: Mapping[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457; the facts of the error are members beside these.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {**_TEXT, "description": "urn:adapter-safety:problem:<code>, stable"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
    },
}
RESPONSES: Mapping[int | str, dict[str, Any]] = {
    "4XX": {"description": "Correct the request", "content": {MEDIA_TYPE: {"schema": PROBLEM}}},
    "5XX": {"description": "Try again later", "content": {MEDIA_TYPE: {"schema": PROBLEM}}},
}
"""What any route may answer besides its own, for the API's description."""


def status_of(kind: type[AdapterSafetyError]) -> int:
    return next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)


class ProblemResponse(JSONResponse):
    """Leaves its code in the scope, for who counts refusals."""

    media_type = MEDIA_TYPE
    refusal: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROBLEM_IN_SCOPE] = self.refusal
        await super().__call__(scope, receive, send)


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    facts: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """An RFC 9457 response; `facts` are its extension members."""
    body = {
        **(facts or {}),
        "type": f"urn:adapter-safety:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    response = ProblemResponse(body, status, headers=headers)
    response.refusal = code
    return response


def problem_of(error: AdapterSafetyError) -> ProblemResponse:
    status = status_of(type(error))
    return problem(status, error.code, error.title, str(error), error.facts, _headers(error))


def _headers(error: AdapterSafetyError) -> Mapping[str, str] | None:
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, HookSecretMissing):
        return {"WWW-Authenticate": "X-Webhook-Secret"}
    if isinstance(error, Unavailable):
        return {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, TooMany):
        return {"Retry-After": str(error.facts["retry_after_s"])}
    return None


def problem_of_fault(fault: Fault) -> ProblemResponse:
    """A failed job's fault, answered to the client that waited for it; what was sent was taken."""
    status = {"worker-fault": 500, "job-cancelled": 409}.get(fault.code, 422)
    response = problem(status, fault.code, fault.title, fault.detail, fault.facts)
    response.refusal = None
    return response


def tell_why(error: Unavailable) -> None:
    """To the operator's log: the client learns only which part it is."""
    cause = error.__cause__
    logger.warning("%s: %s", error, getattr(cause, "orig", None) or cause or "no reason given")


def install(app: FastAPI) -> None:
    """Answer every error of this application as a problem."""

    @app.exception_handler(AdapterSafetyError)
    def _known(_: Request, error: AdapterSafetyError) -> Response:
        if isinstance(error, Unavailable):
            tell_why(error)
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    def _invalid(_: Request, error: RequestValidationError) -> Response:
        return _validation_problem(error.errors())

    @app.exception_handler(HTTPException)
    def _http(_: Request, error: HTTPException) -> Response:
        return _http_problem(error)

    @app.exception_handler(ClientDisconnect)
    def _gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it


def _validation_problem(errors: Sequence[Any]) -> Response:
    first = errors[0]
    if first["type"] == "json_invalid":
        return problem_of(MalformedRequest(reason="the body is not valid JSON"))
    fields = [{"field": _dotted(e["loc"]), "reason": e["msg"]} for e in errors[:20]]
    error = InvalidField(**fields[0])
    return problem(422, error.code, error.title, str(error), {**error.facts, "errors": fields})


def _dotted(location: Sequence[object]) -> str:
    """`("body", "method", "select")` -> `method.select`."""
    return ".".join(map(str, location[1:])) or str(location[0])


def _http_problem(error: HTTPException) -> Response:
    if error.status_code < 400:  # 204 and 304 have no body, so no problem either
        return Response(status_code=error.status_code, headers=error.headers)
    code = {404: "not-found", 405: "method-not-allowed", 408: "too-slow", 413: "too-large"}.get(
        error.status_code, f"http-{error.status_code}"
    )
    return problem(
        error.status_code, code, str(error.detail), str(error.detail), None, error.headers
    )
