"""Celery's lines as ours."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

from celery import Celery

from workers.canary import TASK_NAME

SPEAKERS = ("celery.worker.strategy", "celery.app.trace")


def lift(record: logging.LogRecord) -> dict[str, object]:
    """The job's id, from what Celery attaches to the lines that it writes about a task."""
    task = _task(record)
    return {"job_id": task["id"]} if "id" in task else {}


def leave_out_canaries() -> None:
    """One is received and succeeds every few seconds, for ever; of one that fails we hear."""
    for name in SPEAKERS:
        logging.getLogger(name).addFilter(_is_no_canary)


def take_stdout(app: Celery) -> None:
    """What libraries print becomes lines of the log. Celery's own word at a shutdown goes around
    `sys.stdout`; we say it ourselves."""
    app.log.redirect_stdouts("WARNING")
    sys.__stdout__ = sys.stdout  # type: ignore[assignment, misc] # because typeshed says it is a file, and final


def _is_no_canary(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or _task(record).get("name") != TASK_NAME


def _task(record: logging.LogRecord) -> Mapping[str, Any]:
    data = getattr(record, "data", None)
    return data if isinstance(data, Mapping) else {}
