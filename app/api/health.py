"""/healthz and /readyz"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Request, Response
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
async def readyz(request: Request, services: ServicesDep, response: Response) -> ReadinessOut:
    """Whether the database, the storage and the broker answer; 503 if one does not. Without any
    worker it is ready all the same: jobs are taken, kept, and done when one comes."""
    looks: Looks = request.app.state.readiness
    found = await looks.look(partial(_looked, services))
    if not all(found.parts.values()):
        response.status_code = 503
    return found


@dataclass
class Looks:
    """One at a time, whoever asks meanwhile: a look writes to the storage, needs no key, and lasts
    for half a minute where the storage hangs."""

    _looking: "asyncio.Task[ReadinessOut] | None" = None

    async def look(self, looked: Callable[[], ReadinessOut]) -> ReadinessOut:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(looked))
        return await asyncio.shield(self._looking)


def _looked(services: Services) -> ReadinessOut:
    parts = {
        "database": _answers(services.records.check),
        "storage": _answers(services.artifacts.check),
        "broker": _answers(services.queue.check),
    }
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
