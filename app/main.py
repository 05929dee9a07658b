"""Wires the HTTP service: `uvicorn --factory app.main:create_app`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from app.api import adapters, alignments, errors, health, jobs, patch, results, schema_pages
from app.api.body_limit import BodyLimit, Pace
from app.api.services import Services
from app.api.uploads import FRAMING_BYTES, sweep
from app.config import Settings
from app.domain.errors import Unavailable
from app.jobs.submit import reconcile
from app.storage.artifacts import ObjectArtifacts
from app.storage.events import RedisEvents
from app.storage.models import FolderModels
from app.storage.queue import CeleryQueue
from app.storage.records import SqlRecords

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 1 << 20  # a job has under 1 KiB; uploads have their own limit
DESCRIPTION = """\
Takes a LoRA adapter and the names of the base and the chat model it was tuned from; gives back a
safety-patched adapter with a report that says, layer by layer, what was changed and why.
Errors are RFC 9457 problems whose `type` is stable.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Nothing connects before it is served, and nothing here imports torch."""
    settings = settings or Settings()
    app = FastAPI(
        title="adapter-safety",
        version=version("adapter-safety"),
        description=DESCRIPTION,
        lifespan=_lifespan,
    )
    app.state.services = wire(settings)
    app.state.reconcile_every_s = settings.reconcile_every_s
    for module in (adapters, patch, jobs, results, alignments, schema_pages, health):
        app.include_router(module.router)
    upload_bytes = settings.max_upload_bytes + FRAMING_BYTES
    uploads = dict.fromkeys(("/v1/adapters", "/v1/patch"), upload_bytes)
    pace = Pace(settings.body_bytes_per_s, settings.body_grace_s)
    app.add_middleware(BodyLimit, default=MAX_JSON_BYTES, limits=uploads, pace=pace)
    errors.install(app)
    return app


def wire(settings: Settings) -> Services:
    """The real parts behind the ports."""
    return Services(
        records=SqlRecords(settings.resolved_database_url),
        artifacts=ObjectArtifacts(settings.resolved_storage_url),
        queue=CeleryQueue(
            settings.resolved_redis_url, visibility_timeout_s=settings.visibility_timeout_s
        ),
        events=RedisEvents(settings.resolved_redis_url),
        models=FolderModels(settings.resolved_model_root),
        staging_dir=settings.staging_dir,
        max_upload_bytes=settings.max_upload_bytes,
        max_wait_s=settings.max_wait_s,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    await asyncio.to_thread(sweep, app.state.services.staging_dir)
    task = asyncio.create_task(_reconcile_for_ever(app.state.services, app.state.reconcile_every_s))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _reconcile_for_ever(services: Services, every_s: float) -> None:
    """Bring jobs back that the queue has lost. Several processes doing so do no harm."""
    while True:
        try:
            found = await asyncio.to_thread(
                reconcile, services.records, services.queue, queued_for_s=every_s
            )
            if found:
                logger.info("enqueued again: %s", ", ".join(found))
        except Unavailable as error:
            logger.warning("cannot look for lost jobs: %s", error)
        except Exception:  # whatever it was, the next round may find it mended
            logger.exception("the search for lost jobs failed")
        await asyncio.sleep(every_s)
