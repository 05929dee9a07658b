"""/healthz and /readyz"""

from collections.abc import Callable

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.api.errors import tell_why
from app.api.services import Services, ServicesDep
from app.domain.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    # not in a thread: a storage that is away may hold all of them, and no restart mends that
    return {"status": "ok"}


class ReadinessOut(BaseModel):
    parts: dict[str, bool] = Field(description="Whether each answers")
    workers: int | None = Field(
        description="Workers that have lately shown that they do work; null where the broker, "
        "which knows of them, is away"
    )


@router.get("/readyz", responses={503: {"description": "A part does not answer"}})
def readyz(services: ServicesDep, response: Response) -> ReadinessOut:
    """Whether the database, the storage and the broker answer; 503 if one does not. Without any
    worker it is ready all the same: jobs are taken, kept, and done when one comes."""
    parts = {
        "database": _answers(services.records.check),
        "storage": _answers(services.artifacts.check),
        "broker": _answers(services.queue.check),
    }
    if not all(parts.values()):
        response.status_code = 503
    return ReadinessOut(parts=parts, workers=_workers(services))


def _workers(services: Services) -> int | None:
    try:
        return services.events.workers_alive()
    except Unavailable:
        return None


def _answers(check: Callable[[], None]) -> bool:
    try:
        check()
    except Unavailable as error:
        tell_why(error)
        return False
    return True
