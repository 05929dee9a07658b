"""/healthz and /readyz"""

from collections.abc import Callable

from fastapi import APIRouter, Response

from app.api.services import ServicesDep
from app.domain.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "A part does not answer"}})
def readyz(services: ServicesDep, response: Response) -> dict[str, dict[str, bool]]:
    """Whether the database, the storage and the broker answer; 503 if one does not."""
    parts = {
        "database": _answers(services.records.check),
        "storage": _answers(services.artifacts.check),
        "broker": _answers(services.queue.check),
    }
    if not all(parts.values()):
        response.status_code = 503
    return {"parts": parts}


def _answers(check: Callable[[], None]) -> bool:
    try:
        check()
    except Unavailable:
        return False
    return True
