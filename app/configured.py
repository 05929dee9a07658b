"""The log and the traces of a process, by the settings. Called once, where a process begins."""

from app.config import Settings
from app.observe import logs, traces


def configure_logs(settings: Settings, process: str, lift: logs.Lift | None = None) -> None:
    """Make the process's log ours; `process` stands in each of its lines."""
    logs.configure(
        settings.log_format,
        settings.log_level,
        process=process,
        secrets=settings.secrets,
        lift=lift,
    )


def configure_traces(settings: Settings, service: str) -> None:
    """Switch traces on where they are wanted. Raises RuntimeError where the extra is missing."""
    if not settings.traces:
        return
    try:
        from app.observe.otel import OtelTracing  # here, because the extra may not be installed
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "ADAPTER_SAFETY_TRACES is set: install adapter-safety with the extra `otel`"
        ) from error
    traces.switch_on(OtelTracing(service))
