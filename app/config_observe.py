"""Settings of what the service says of itself: its log, its figures, its traces."""

import os
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

SECRET_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "ADAPTER_SAFETY_API_KEY",
    "PGPASSWORD",
)
"""Of other programs' conventions, which this service's libraries read."""

HEADER_VARIABLES = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")


class ObserveSettings(BaseSettings):
    """A part of `app.config.Settings`."""

    log_format: Literal["json", "console"] = Field(
        default="json",
        description="How a line of the log is written: json, one object a line, or console, for "
        "people. Unset, `up` takes console.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged; debug tells of every module."
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        description="What a scraper of /metrics sends as a bearer token. Unset, the API's figures "
        "are for services without keys alone, and a worker's for whoever reaches its port.",
    )
    worker_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of a worker's own /metrics, /healthz and /readyz; 0 opens none.",
    )
    worker_host: str = Field(
        default="127.0.0.1", description="Address that a worker's port is opened on."
    )
    worker_silent_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds after which a worker whose child shows no sign of work is not ready; "
        "at least as long as a lease.",
    )
    traces: bool = Field(
        default=False,
        description="Whether traces are sent by OTLP, as OTEL_EXPORTER_OTLP_ENDPOINT and its like "
        "say; needs the extra `otel`.",
    )

    @property
    def metrics_secret(self) -> str | None:
        """An empty one is none: it would let everybody in."""
        given = self.metrics_token.get_secret_value() if self.metrics_token else ""
        return given or None


def secrets_in(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What the environment holds for this service's libraries, and no log line may."""
    headers = ",".join(environment.get(name, "") for name in HEADER_VARIABLES)
    values = [pair.partition("=")[2].strip() for pair in headers.split(",")]
    return [
        *values,
        *map(unquote, values),
        *(environment.get(name, "") for name in SECRET_VARIABLES),
    ]
