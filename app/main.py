"""Wires the HTTP service: `uvicorn --factory app.main:create_app`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import __version__
from app.api import (
    adapters,
    alignments,
    api_keys,
    datasets,
    errors,
    health,
    hooks,
    jobs,
    metrics,
    page,
    parts,
    patch,
    results,
    schema_pages,
    verdicts,
    webhooks,
)
from app.api.body_limit import BodyLimit, Pace
from app.api.figures import ApiFigures, Glance
from app.api.observed import PROBES, Observed
from app.api.outer import Outer
from app.api.policy_file import PolicyFile
from app.api.services import Hook, OpenDoor, Services
from app.api.uploads import FRAMING_BYTES, sweep
from app.config import Settings
from app.configured import configure_logs, configure_traces
from app.domain.access import Quotas
from app.domain.errors import Unavailable
from app.jobs.deliver import Sender
from app.jobs.hub_ports import HubReader
from app.jobs.moderate import moderate
from app.jobs.moderator import Moderator
from app.jobs.submit import reconcile
from app.observe import traces
from app.storage.artifacts import ObjectArtifacts
from app.storage.callbacks import HttpPoster
from app.storage.events import RedisEvents
from app.storage.figures import SqlFigures
from app.storage.hub.reader import ClientsHub, Hub
from app.storage.hub.writer import HfWriter
from app.storage.keys import SqlKeys
from app.storage.limiter import RedisLimiter
from app.storage.models import FolderModels
from app.storage.queue import CeleryQueue
from app.storage.records import SqlRecords
from app.storage.verdicts import SqlVerdicts
from app.storage.webhooks import SqlWebhooks

logger = logging.getLogger(__name__)

MODERATORS = 2  # at once, so that one large import does not hold up every other verdict
MAX_JSON_BYTES = 1 << 20  # a job has under 1 KiB; uploads have their own limit
CORS_HEADERS = [
    "Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "Range"
]  # fmt: skip
CORS_EXPOSED = ["Content-Range", "ETag", "Location", "Repr-Digest", "Retry-After", "X-Request-ID"]
DESCRIPTION = """\
Takes a LoRA adapter and the names of the base and the chat model it was tuned from; gives back a
safety-patched adapter with a report that says, layer by layer, what was changed and why.
Errors are RFC 9457 problems whose `type` is stable.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Nothing connects before it is served, and nothing here imports torch.

    Without `settings` a server has called this: then the process is ours, and so is its log.
    """
    if settings is None:
        settings = Settings()
        configure_logs(settings, "api")
        configure_traces(settings, "adapter-safety-api")
    app = FastAPI(
        title="adapter-safety",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # `page` shows the description; FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
        responses={**errors.RESPONSES},
        telemetry=_telemetry(),
    )
    app.state.services = services = wire(settings)
    app.state.figures = ApiFigures(Glance(services.figures, services.queue, services.events))
    app.state.readiness = health.Looks()
    app.state.settings = settings
    of_data = (adapters, patch, jobs, results, alignments, datasets)
    of_others = (webhooks, hooks, verdicts, api_keys, schema_pages, health, metrics, page)
    for module in (*of_data, *of_others):
        app.include_router(module.router)
    for router in parts.ROUTERS:
        app.include_router(router)
    _add_middleware(app, settings)
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
        events=RedisEvents(settings.resolved_redis_url, kept_s=settings.events_kept_s),
        models=FolderModels(
            settings.resolved_model_root, settings.allowed_models, with_hub=settings.hub
        ),
        hub=_hub(settings),
        staging_dir=settings.staging_dir,
        max_upload_bytes=settings.max_upload_bytes,
        max_dataset_bytes=settings.max_dataset_bytes,
        max_wait_s=settings.max_wait_s,
        keys=SqlKeys(settings.resolved_database_url),
        limiter=RedisLimiter(settings.resolved_redis_url, settings.requests_per_minute),
        quotas=Quotas(settings.max_queued_jobs or None, settings.max_stored_bytes or None),
        open_door=_open_door(settings),
        verdicts=SqlVerdicts(settings.resolved_database_url),
        figures=SqlFigures(settings.resolved_database_url),
        metrics_token=settings.metrics_secret,
        hook=Hook(settings.hook_secrets) if settings.hook_secrets else None,
        policy=PolicyFile(settings.policy) if settings.policy and settings.hub else None,
        webhooks=SqlWebhooks(settings.resolved_database_url),
        callbacks=settings.callback_rules,
    )


def _telemetry() -> TelemetryConfig:
    """The framework's own spans of requests, where traces are on; its figures are ours."""
    provider = traces.provider()
    off: TelemetryConfig = {"metrics": False, "logs": False, "operation_spans": False}
    if provider is None:
        return {**off, "tracing": False}
    return {**off, "tracer_provider": provider, "exclude": lambda scope: scope["path"] in PROBES}


def _hub(settings: Settings) -> HubReader | None:
    """Who needs no key is on this machine, where the token is at hand anyway."""
    if not settings.hub:
        return None
    return ClientsHub(("*",) if settings.auth == "none" else settings.hub_token_repositories)


def _open_door(settings: Settings) -> OpenDoor | None:
    if settings.auth != "none":
        return None
    return OpenDoor(frozenset(settings.allowed_hosts), frozenset(settings.cors_origins))


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last is the first to see a request."""
    upload_bytes = settings.max_upload_bytes + FRAMING_BYTES
    uploads = {
        **dict.fromkeys(("/v1/adapters", "/v1/patch"), upload_bytes),
        "/v1/datasets": settings.max_dataset_bytes + FRAMING_BYTES,
        hooks.PATH: hooks.MAX_BYTES,
    }
    pace = Pace(settings.body_bytes_per_s, settings.body_grace_s)
    app.add_middleware(BodyLimit, default=MAX_JSON_BYTES, limits=uploads, pace=pace)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_EXPOSED,
        )
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    app.add_middleware(Observed, figures=app.state.figures)
    app.add_middleware(Outer)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    await asyncio.to_thread(sweep, app.state.services.staging_dir)
    settings, services = app.state.settings, app.state.services
    rounds = (
        (_reconcile, settings.reconcile_every_s),
        (_collect, settings.gc_every_s),
    )
    desk = moderator(services, settings)
    acts = [(partial(act, services, settings), every_s) for act, every_s in rounds]
    if desk is not None:
        acts += [(partial(_moderate, desk), settings.moderate_every_s)] * MODERATORS
    tasks = [asyncio.create_task(_for_ever(act, every_s)) for act, every_s in acts]
    poster = HttpPoster(services.callbacks, proxy=settings.webhook_proxy)
    sender = Sender(services.webhooks, poster)
    tasks.append(asyncio.create_task(sender.run(settings.webhook_every_s)))
    try:
        yield
    finally:
        if desk is not None:
            desk.stopping.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        poster.close()
        traces.switch_off()


async def _for_ever(act: "partial[None]", every_s: float) -> None:
    """Several processes that do so do no harm."""
    while True:
        try:
            await asyncio.to_thread(act)
        except Unavailable as error:
            logger.warning("%s: %s", act.func.__name__, error)
        except Exception:  # whatever it was, the next round may find it mended
            logger.exception("%s failed", act.func.__name__)
        await asyncio.sleep(every_s)


def _reconcile(services: Services, settings: Settings) -> None:
    """Bring jobs back that the queue has lost."""
    found = reconcile(services.records, services.queue, queued_for_s=settings.reconcile_every_s)
    if found:
        logger.info("enqueued again: %s", ", ".join(found))


def _moderate(desk: Moderator) -> None:
    """Bring verdicts on pushes to a hub on."""
    moderate(desk)


def moderator(services: Services, settings: Settings) -> Moderator | None:
    """None where no hub calls. It reads by the service's own token, because the repositories are
    those that the operator's policy names."""
    if services.policy is None or not settings.hub:
        return None
    return Moderator(
        verdicts=services.verdicts,
        records=services.records,
        artifacts=services.artifacts,
        queue=services.queue,
        events=services.events,
        models=services.models,
        reader=Hub(),
        writer=HfWriter(),
        policy=services.policy.policy,
        staging_dir=services.staging_dir,
        max_upload_bytes=services.max_upload_bytes,
        lease_s=settings.lease_s,
    )


def _collect(services: Services, settings: Settings) -> None:
    """Take away what is over its time."""
    found = services.collect(settings.retention)
    if any(asdict(found).values()):
        logger.info("over their time, and gone: %s", found)
