"""OpenTelemetry behind `app.observe.traces`. Imported only where traces are switched on, because
the extra `otel` may not be installed; where spans go is OpenTelemetry's own settings' (`OTEL_*`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.observe.traces import Kind, Span

KINDS = {"internal": SpanKind.INTERNAL, "consumer": SpanKind.CONSUMER}
PREFIX = "adapter_safety."
_propagator = TraceContextTextMapPropagator()


class OtelTracing:
    """To be made after a fork: it has a thread of its own, which sends."""

    def __init__(self, service: str) -> None:
        named = {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", service),
            "service.version": version("adapter-safety"),
        }
        self.provider = TracerProvider(resource=Resource.create(named))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("adapter-safety")

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: Kind,
        parent: str | None,
        link: str | None,
        attributes: dict[str, str | float],
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            context=None if parent is None else _context(parent),
            kind=KINDS[kind],
            links=_links(link),
            attributes={PREFIX + key: value for key, value in attributes.items()},
            record_exception=False,  # because its text may hold what a stranger sent
            set_status_on_exception=False,  # as above
        ) as found:
            told = _Told(found)
            try:
                yield told
            except Exception as error:  # whatever ended it: its kind is told, and it goes on
                told.fail(type(error).__name__)
                raise

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return carrier.get("traceparent")

    def shutdown(self) -> None:
        self.provider.shutdown()


class _Told:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, name: str, value: str | float) -> None:
        self._span.set_attribute(PREFIX + name, value)

    def fail(self, kind: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, kind))


def _context(traceparent: str) -> Context:
    return _propagator.extract({"traceparent": traceparent}, context=Context())


def _links(traceparent: str | None) -> list[Link]:
    found: SpanContext | Any = None
    if traceparent is not None:
        found = trace.get_current_span(_context(traceparent)).get_span_context()
    return [Link(found)] if found is not None and found.is_valid else []
