"""What is being worked on, for every log line that is written meanwhile: `request_id`, `job_id`,
`tenant`, `attempt`, `module`. Standard library only, because the pipeline says its modules here."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_bound: ContextVar[Mapping[str, object]] = ContextVar("adapter_safety_log")


def current() -> Mapping[str, object]:
    """What is bound in this thread or task."""
    return _bound.get({})


def bind(**fields: object) -> None:
    """From here on, in this thread or task."""
    _bound.set({**current(), **fields})


def unbind_all() -> None:
    """Forget what was bound in this thread or task."""
    _bound.set({})


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Inside the block."""
    token = _bound.set({**current(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def request_id() -> str | None:
    """Of the HTTP request that is being answered, or that submitted the job at hand."""
    found = current().get("request_id")
    return found if isinstance(found, str) else None
