"""The log and the traces of a process, by the settings. Called once, where a process begins."""

from importlib.util import find_spec

from app.config import Settings
from app.observe import logs, traces

MISSING = "ADAPTER_SAFETY_TRACES is set: install adapter-safety with the extra `otel`"


def configure_logs(settings: Settings, process: str, lift: logs.Lift | None = None) -> None:
    """Make the process's log ours; `process` stands in each of its lines."""
    logs.configure(
        settings.log_format,
        settings.log_level,
        process=process,
        secrets=settings.secrets,
        lift=lift,
    )


def check_traces(settings: Settings) -> None:
    """Raises RuntimeError where traces are wanted and the extra is missing. Imports nothing of it,
    so that a process may fork afterwards."""
    try:
        is_there = not settings.traces or find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:  # nor what it would be in
        is_there = False
    if not is_there:
        raise RuntimeError(MISSING)


def configure_traces(settings: Settings, service: str) -> None:
    """Switch traces on where they are wanted. Raises RuntimeError where the extra is missing."""
    if not settings.traces:
        return
    try:
        from app.observe.otel import OtelTracing  # here, because the extra may not be installed
    except ModuleNotFoundError as error:
        raise RuntimeError(MISSING) from error
    traces.switch_on(OtelTracing(service))
