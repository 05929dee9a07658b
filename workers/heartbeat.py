"""The parent's round: send a canary, look at the child, tell the broker, a file and a port."""

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from celery import Celery

from app.config import Settings
from app.storage.events import RedisEvents
from workers.canary import Canary, own_name
from workers.health import (
    Health,
    Watcher,
    forget_health,
    forget_the_dead,
    signs,
    write_health,
)

if TYPE_CHECKING:
    from workers.exporter import Exporter

logger = logging.getLogger(__name__)

EVERY_S = 10.0
FIRST_EVERY_S = 0.5  # until the child has shown itself once


@dataclass
class Heartbeat:
    name: str
    canary: Canary
    watcher: Watcher
    events: RedisEvents
    folder: Path  # of the files that health checks read
    every_s: float
    exporter: "Exporter | None" = None
    health: Health | None = None  # what was seen last
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        forget_the_dead(self.folder)
        if self.exporter is not None:
            self.exporter.start(lambda: self.health)
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The worker ends: nothing of it stays."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=self.every_s)
        forget_health(self.folder)
        self.canary.forget()
        if self.exporter is not None:
            self.exporter.stop()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s()):
            self._round()

    def _pause_s(self) -> float:
        has_begun = self.health is not None and self.health.state != "starting"
        return self.every_s if has_begun else min(FIRST_EVERY_S, self.every_s)

    def _round(self) -> None:
        before, health = self.health, self.watcher.look(broker_answers=self.canary.send())
        self.health = health
        if before is None or before.state != health.state:
            log = logger.warning if health.state in ("silent", "no broker") else logger.info
            log("this worker is: %s", health.state)
        if health.is_ready:
            self.events.beat(self.name, ttl_s=3 * self.every_s)
        try:
            write_health(self.folder, health)
        except OSError as error:
            logger.warning("health checks see nothing new of this worker: %s", error)


def make_heartbeat(settings: Settings, app: Celery) -> Heartbeat:
    """To be called in the parent."""
    silent_s, name = settings.resolved_worker_silent_s, own_name()
    return Heartbeat(
        name=name,
        canary=Canary(app, settings.resolved_redis_url, name, silent_s),
        watcher=Watcher(silent_s, signs),
        events=RedisEvents(settings.resolved_redis_url),
        folder=settings.health_dir,
        every_s=min(EVERY_S, silent_s / 3),
        exporter=_exporter(settings),
    )


def _exporter(settings: Settings) -> "Exporter | None":
    if not settings.worker_port:
        return None
    from workers.exporter import Exporter  # here, because most workers open no port

    return Exporter(settings.worker_host, settings.worker_port, settings.metrics_secret)
