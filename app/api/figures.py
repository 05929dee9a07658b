"""The API's figures: what it counts of its own requests, and what it looks up at a scrape."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.errors import Unavailable
from app.domain.job import KINDS, STATUSES
from app.domain.webhook import DELIVERY_STATES
from app.jobs.figures import Counting, Figures
from app.jobs.ports import Events, Queue

# because they double the series, and a restart shows in a counter too
disable_created_metrics()  # type: ignore[no-untyped-call] # because it has no types

PREFIX = "adapter_safety_"
KEPT_S = 5.0  # because several scrapers should not make the database count several times
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
NO_ROUTE = "none"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Up to the longest `Prefer: wait=N` and to uploads of gigabytes."""
UPLOADS = frozenset({"/v1/adapters", "/v1/patch", "/v1/datasets"})


@dataclass(frozen=True)
class Looked:
    """What one look found; None where that part does not answer."""

    database: Figures | None
    queue_messages: int | None
    workers: int | None


@dataclass
class Glance:
    """Looks at the database and the broker, at most every few seconds."""

    counting: Counting
    queue: Queue
    events: Events
    _at: float = field(default=-KEPT_S)
    _found: Looked | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> Looked:
        with self._lock:
            if self._found is None or time.monotonic() - self._at > KEPT_S:
                self._found, self._at = self._looked(), time.monotonic()
            return self._found

    def _looked(self) -> Looked:
        messages = workers = figures = None
        with suppress(Unavailable):
            messages, workers = self.queue.depth(), self.events.workers_alive()
        with suppress(Unavailable):
            figures = self.counting.figures()
        return Looked(figures, messages, workers)


class ApiFigures:
    """A registry of one application."""

    def __init__(self, glance: Glance) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            PREFIX + "http_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            PREFIX + "http_request_duration_seconds",
            "Time from a request's head to its answer's; the body of an upload lies between.",
            ("method", "route"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._refused = Counter(
            PREFIX + "uploads_refused",
            "Uploads that were refused, by the problem's code.",
            ("problem",),
            registry=registry,
        )
        registry.register(Looks(glance))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """`route` is the template, so that no id becomes a label."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, route or NO_ROUTE, str(status)).inc()
        self._seconds.labels(known, route or NO_ROUTE).observe(seconds)

    def refused(self, problem: str) -> None:
        self._refused.labels(problem).inc()


class Looks(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, glance: Glance) -> None:
        self._glance = glance

    def collect(self) -> Iterator[Metric]:
        looked = self._glance.look()
        yield _up(looked)
        if looked.queue_messages is not None:
            yield _gauge(
                "queue_messages", "Messages that wait for a worker.", looked.queue_messages
            )
        if looked.workers is not None:
            said = "Workers that have lately shown that they do work."
            yield _gauge("workers_ready", said, looked.workers)
        if looked.database is not None:
            yield from _of_database(looked.database)

    def describe(self) -> list[Metric]:
        """Nothing is looked up at the start."""
        return []


def _up(looked: Looked) -> Metric:
    found = GaugeMetricFamily(
        PREFIX + "part_up", "Whether a part answered at this scrape.", labels=["part"]
    )
    found.add_metric(["database"], float(looked.database is not None))
    found.add_metric(["broker"], float(looked.workers is not None))
    return found


def _of_database(figures: Figures) -> Iterator[Metric]:
    """Every kind and state there can be, because what is not there cannot be told from zero."""
    counted = GaugeMetricFamily(
        PREFIX + "jobs", "Jobs that are kept, by kind and status.", labels=["kind", "status"]
    )
    for kind in KINDS:
        for status in STATUSES:
            counted.add_metric([kind, status], figures.jobs.get((kind, status), 0))
    yield counted
    said = "Time since the oldest queued job was submitted; 0 where none waits."
    yield _gauge("oldest_queued_job_age_seconds", said, figures.oldest_queued_s)
    told = GaugeMetricFamily(
        PREFIX + "webhook_deliveries", "Webhook deliveries that are kept.", labels=["state"]
    )
    for state in DELIVERY_STATES:
        told.add_metric([state], figures.deliveries.get(state, 0))
    yield told


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, said, value=value)
