"""One form for every line of a process's log: ours, uvicorn's, Celery's, the libraries', the
warnings and what ends the process. Whoever writes lines uses `logging` as ever."""

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.observe.context import current
from app.observe.redaction import on_one_line, redactor

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

FIELDS = ("method", "path", "route", "status", "duration_s", "tenant", "cosine", "source")
"""What a call may give as `extra`; anything else that libraries attach is left out."""
OWN = ("app", "workers", "process")
"""Loggers that a level of `debug` is for: the libraries' own would drown them."""
QUIET = ("httpx", "httpcore", "urllib3", "alembic")
"""Their `info` tells of each request that they make, or of each look at the schema."""
TAKEN_OVER = (
    "uvicorn", "uvicorn.error", "celery", "celery.task", "celery.redirected", "multiprocessing",
    "py.warnings", "transformers", "huggingface_hub", "datasets", "peft",
)  # fmt: skip
"""Loggers whose own handlers would write a line of another form, or each line twice."""

SPOKEN_FOR = ("uvicorn.access",)
"""We say the same ourselves, with the request's id and without its query."""

Lift = Callable[[logging.LogRecord], dict[str, object]]
"""Fields that a process finds in its libraries' records."""


def configure(
    form: LogFormat,
    level: LogLevel,
    *,
    process: str,
    secrets: Iterable[str] = (),
    lift: Lift | None = None,
) -> None:
    """Write every line to stderr from here on; `process` ("api", "worker") stands in each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form, process, redactor(secrets), lift))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
    for name in OWN:
        logging.getLogger(name).setLevel(level.upper())
    for name in (*TAKEN_OVER, *SPOKEN_FOR):
        taken = logging.getLogger(name)
        taken.handlers.clear()
        taken.propagate = name not in SPOKEN_FOR
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _log_end
    threading.excepthook = _log_end_of_thread


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Hides secrets in the line as it will stand, so that no field and no trace is forgotten."""

    def __init__(
        self, form: LogFormat, process: str, redacted: Callable[[str], str], lift: Lift | None
    ) -> None:
        self._redacted, self._form = redacted, form
        super().__init__(
            foreign_pre_chain=_before(process, lift),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(form),
            ],
        )

    def format(self, record: logging.LogRecord) -> str:
        line = self._redacted(super().format(record))
        if self._form == "json":
            return line
        return "\n".join(map(on_one_line, line.split("\n")))  # a trace may hold a stranger's text


def _before(process: str, lift: Lift | None) -> list[Processor]:
    def named(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        lifted = lift(event["_record"]) if lift else {}
        return {**current(), **lifted, **event, "process": process}

    return [
        named,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=FIELDS),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendering(form: LogFormat) -> list[Processor]:
    if form == "console":
        # plain, because the renderer's own choice would print every local variable
        traces = structlog.dev.plain_traceback
        return [
            _one_line,
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=traces),
        ]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(default=str),
    ]


def _one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Text that a stranger sent begins no line of its own and moves no cursor."""
    return {k: on_one_line(v) if isinstance(v, str) else v for k, v in event.items()}


def _log_end(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    logging.getLogger("process").critical("ended", exc_info=(kind, error, traceback))


def _log_end_of_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None:
        found = (given.exc_type, given.exc_value, given.exc_traceback)
        logging.getLogger("process").critical("a thread ended", exc_info=found)
