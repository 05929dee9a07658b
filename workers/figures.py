"""What a worker counts (in its child) and shows (from its parent)."""

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.domain.job import KINDS
from app.observe.watch import (
    CACHE_MOVES,
    CACHE_RESULTS,
    OUTCOMES,
    PHASES,
    CacheMove,
    CacheResult,
    Outcome,
    Phase,
    listen,
)
from workers.exporter import PREFIX, forget_dead_children
from workers.health import Health

JOB_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800)
DEVICE_EVERY_S = 1.0
DECISIONS = ("projected", "kept", "skipped")

SAID = {
    "phase_seconds": "Time of jobs in each phase; a phase within another counts alone.",
    "modules": "Modules of finished patches and scores, by what was decided of them.",
    "alignment_lookups": "Alignments that were needed: found on disk (hit), in the device's memory "
    "(device), or computed (miss).",
    "cache_bytes": "Bytes read from and written to the alignment cache on disk.",
}

DeviceBytes = Callable[[], Mapping[str, float]]
"""Bytes of the device's memory by what they are: allocated, reserved, total."""


class Counted:
    """`Watch` of `app.observe.watch`. Every label there can be begins at zero, because a rate needs
    a value before the first event."""

    def __init__(self, registry: CollectorRegistry, device_bytes: DeviceBytes) -> None:
        self._device_bytes, self._device_at = device_bytes, 0.0

        def counter(name: str, said: str, label: str) -> Counter:
            return Counter(PREFIX + name, said, (label,), registry=registry)

        self._seconds = counter("phase_seconds", SAID["phase_seconds"], "phase")
        self._bytes = counter("phase_bytes", "Bytes that phases have moved.", "phase")
        self._modules = counter("modules", SAID["modules"], "decision")
        self._lookups = counter("alignment_lookups", SAID["alignment_lookups"], "result")
        self._cache_bytes = counter("alignment_cache_bytes", SAID["cache_bytes"], "move")
        self._problems = counter("job_problems", "Failed jobs, by the problem's code.", "problem")
        self._jobs = Histogram(
            PREFIX + "job_duration_seconds",
            "Turns at jobs, by how they ended for this worker.",
            ("kind", "outcome"),
            buckets=JOB_BUCKETS_S,
            registry=registry,
        )
        self._device = Gauge(
            PREFIX + "device_memory_bytes",
            "Memory of the CUDA device: allocated and reserved by this worker, and in all.",
            ("state",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._begin()

    def _begin(self) -> None:
        for phase in PHASES:
            self._seconds.labels(phase)
            self._bytes.labels(phase)
        for decision in DECISIONS:
            self._modules.labels(decision)
        for result in CACHE_RESULTS:
            self._lookups.labels(result)
        for move in CACHE_MOVES:
            self._cache_bytes.labels(move)
        for kind in KINDS:
            for outcome in OUTCOMES:
                self._jobs.labels(kind, outcome)
        self._problems.labels("worker-fault")
        self._look_at_device()

    def took(self, phase: Phase, seconds: float) -> None:
        self._seconds.labels(phase).inc(seconds)
        if time.monotonic() - self._device_at > DEVICE_EVERY_S:
            self._look_at_device()

    def moved(self, phase: Phase, count: int) -> None:
        self._bytes.labels(phase).inc(count)

    def decided(self, decision: str) -> None:
        self._modules.labels(decision).inc()

    def looked_up(self, result: CacheResult) -> None:
        self._lookups.labels(result).inc()

    def kept(self, move: CacheMove, count: int) -> None:
        self._cache_bytes.labels(move).inc(count)

    def ended(self, kind: str, outcome: Outcome, seconds: float, problem: str | None) -> None:
        self._jobs.labels(kind, outcome).observe(seconds)
        if problem is not None:
            self._problems.labels(problem).inc()

    def _look_at_device(self) -> None:
        self._device_at = time.monotonic()
        for state, count in self._device_bytes().items():
            self._device.labels(state).set(count)


def count() -> None:
    """From here on, in this process: the child."""
    listen(Counted(CollectorRegistry(), _cuda_bytes))


def _cuda_bytes() -> Mapping[str, float]:
    """Nothing where there is no CUDA device."""
    import torch  # here, because the parent must not have it

    if not torch.cuda.is_available():
        return {}
    _, total = torch.cuda.mem_get_info()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    return {"allocated": allocated, "reserved": reserved, "total": total}


# ------------------------------------------------------------------------------------------ showing
def exposition(health: Health | None) -> bytes:
    """Prometheus's text, of all that this worker's processes have counted. In the parent."""
    forget_dead_children()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # because it has no types
    registry.register(_OfParent(health))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _OfParent(Collector):
    def __init__(self, health: Health | None) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Times on the wall's clock, as Prometheus has them."""
        health, behind = self._health, time.time() - time.monotonic()
        yield _gauge("ready", "Whether the worker does work.", bool(health and health.is_ready))
        if health is None:
            return
        said = "When the worker's parent last looked after its child."
        yield _gauge("heartbeat_timestamp_seconds", said, health.seen_at + behind)
        if health.signed_at:
            said = "When the worker's child last showed that it works."
            yield _gauge("work_seen_timestamp_seconds", said, health.signed_at + behind)


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, said, value=value)
