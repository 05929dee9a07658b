"""Traces, where a process has switched them on; else every span is nothing, and nothing that sends
is even imported. A trace goes from process to process as W3C's `traceparent`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

Kind = Literal["internal", "consumer"]


class Span(Protocol):
    def note(self, name: str, value: str | float) -> None:
        """Say something of it."""

    def fail(self, kind: str) -> None:
        """It ended with an error of this kind."""


class Tracing(Protocol):
    """What switched-on traces can do; see `app.observe.otel`."""

    provider: Any  # OpenTelemetry's TracerProvider

    def span(
        self,
        name: str,
        *,
        kind: Kind,
        parent: str | None,
        link: str | None,
        attributes: dict[str, str | float],
    ) -> Any:
        """A context manager of a Span."""

    def traceparent(self) -> str | None: ...
    def shutdown(self) -> None: ...


class _Nothing:
    def note(self, name: str, value: str | float) -> None: ...
    def fail(self, kind: str) -> None: ...


_tracing: Tracing | None = None
_NOTHING = _Nothing()


def switch_on(tracing: Tracing) -> None:
    """From here on, in this process."""
    global _tracing
    _tracing = tracing


def switch_off() -> None:
    """Send what is left, and trace no more."""
    global _tracing
    ending, _tracing = _tracing, None
    if ending is not None:
        ending.shutdown()


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,  # a traceparent; else the span that this is in
    link: str | None = None,  # a traceparent of another trace that it belongs with
    **attributes: str | float,
) -> Iterator[Span]:
    """A span around the block."""
    if _tracing is None:
        yield _NOTHING
        return
    with _tracing.span(name, kind=kind, parent=parent, link=link, attributes=attributes) as found:
        yield found


def provider() -> Any | None:
    """OpenTelemetry's own, for a framework that makes spans itself."""
    return None if _tracing is None else _tracing.provider


def traceparent() -> str | None:
    """Of the span that this is in; None where nothing is traced."""
    return None if _tracing is None else _tracing.traceparent()
