"""Settings from the environment (`ADAPTER_SAFETY_*`). Read only where things are wired."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.config_observe import ObserveSettings, secrets_in
from app.config_outside import Names, OutsideSettings
from app.config_urls import DatabaseUrl, Proxies, RedisUrl, StorageUrl
from app.jobs.retain import Retention
from app.observe.redaction import password_of

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _days(count: float) -> timedelta | None:
    return timedelta(days=count) if count else None


class Settings(OutsideSettings, ObserveSettings):
    """Every setting has a default that works on one machine."""

    model_config = SettingsConfigDict(env_prefix="ADAPTER_SAFETY_", extra="ignore")

    data_dir: Path = Field(
        default_factory=lambda: Path.home() / ".adapter-safety",
        description="Folder of the database, the artifacts, the broker's file and the logs.",
    )
    database_url: DatabaseUrl = Field(
        default=None,
        description="sqlite:////folder/file or postgresql+psycopg://user@host/name; SQLite in the "
        "data folder if unset.",
    )
    redis_url: RedisUrl = Field(
        default=None,
        description="Broker and events: redis://host:port/db or unix:///path.sock. Where it is not "
        "set, `up` starts a broker of its own, and anything else takes redis://127.0.0.1:6379/0.",
    )
    storage_url: StorageUrl = Field(
        default=None,
        description="Where artifacts are kept: s3://bucket/prefix or file:///folder; the data "
        "folder if unset.",
    )
    model_root: Path | None = Field(
        default=None,
        description="Folder whose subfolders are the models that jobs may name; "
        "`models` in the data folder if unset.",
    )
    alignment_dir: Path | None = Field(
        default=None,
        description="Folder of the alignment cache, which workers may share; `alignments` in the "
        "data folder if unset.",
    )
    alignment_cache_bytes: int = Field(
        default=20 << 30,
        ge=0,
        description="Most bytes of the alignment cache, the least recently used go first; 0 keeps "
        "nothing.",
    )
    device_cache_bytes: int = Field(
        default=16 << 30,
        ge=0,
        description="Most bytes of a CUDA device's memory that a worker keeps alignments in; 0 "
        "works on the CPU alone.",
    )
    max_upload_bytes: int = Field(
        default=4 << 30, ge=1, description="Largest adapter upload in bytes."
    )
    max_dataset_bytes: int = Field(
        default=256 << 20, ge=1, description="Largest upload of a data set in bytes."
    )
    body_bytes_per_s: float = Field(
        default=16384.0,
        gt=0,
        description="Slowest rate in bytes a second at which a request's body is taken.",
    )
    body_grace_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds that a request's body may take beyond its time at the slowest rate.",
    )
    max_wait_s: float = Field(
        default=60.0, ge=0, description="Longest wait in seconds that `Prefer: wait=N` is given."
    )
    threads: int = Field(
        default=0, ge=0, description="CPU threads of one job; 0 takes every core there is."
    )
    coalesce: int = Field(
        default=16,
        ge=1,
        description="Most queued jobs of one pair of models that a worker does in one pass; 1 does "
        "each alone.",
    )
    lease_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds after which a job whose worker fell silent is given to another.",
    )
    job_time_limit_s: int = Field(
        default=6 * 3600, ge=1, description="Seconds after which a running job is stopped."
    )
    drain_s: float = Field(
        default=10.0,
        ge=0,
        description="Seconds that a worker which is told to stop goes on with its job; then it "
        "gives the job back after the module that it is at.",
    )
    reconcile_every_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds between two searches for jobs that the queue has lost.",
    )

    auth: Literal["keys", "none"] | None = Field(
        default=None,
        description="keys: every request needs an API key; none: for a service that only its own "
        "machine reaches. Unset, `up` on a loopback address takes none, anything else keys.",
    )
    allowed_hosts: Names = Field(
        default=LOOPBACK,
        description="With auth none: names and addresses in a request's Host, with commas; * is "
        "any.",
    )
    cors_origins: Names = Field(
        default=(),
        description="Sites whose pages may use the API, as https://host, with commas; none if "
        "unset.",
    )
    trusted_proxies: Proxies = Field(
        default=(),
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto count, with "
        "commas.",
    )
    allowed_models: Names = Field(
        default=("*",),
        description="Patterns of model ids that jobs may name, as org/*, with commas.",
    )
    requests_per_minute: int = Field(
        default=600, ge=0, description="Requests that an API key may make a minute; 0 is any."
    )
    max_queued_jobs: int = Field(
        default=1000,
        ge=0,
        description="Jobs that a tenant with API keys may have that have not ended; 0 is any.",
    )
    max_stored_bytes: int = Field(
        default=0,
        ge=0,
        description="Bytes of adapters and data sets that a tenant with API keys may have stored; "
        "0 is any.",
    )

    results_days: float = Field(
        default=0,
        ge=0,
        description="Days for which ended jobs, with their reports and archives, are kept; 0 is "
        "for ever.",
    )
    adapters_days: float = Field(
        default=0,
        ge=0,
        description="Days for which an adapter, a data set, a safety module or a kit is kept after "
        "its last upload or use, where no job names it; 0 is for ever.",
    )
    events_days: float = Field(
        default=7, gt=0, description="Days for which a job's events are kept after the last."
    )
    deliveries_days: float = Field(
        default=30,
        ge=0,
        description="Days for which webhooks' deliveries that have ended are kept; 0 is for ever.",
    )
    gc_every_s: float = Field(
        default=3600.0,
        gt=0,
        description="Seconds between two rounds in which the API takes away what is over its time.",
    )

    @property
    def retention(self) -> Retention:
        left = max(timedelta(days=2), 2 * timedelta(seconds=self.job_time_limit_s))
        deliveries = _days(self.deliveries_days)
        return Retention(_days(self.results_days), _days(self.adapters_days), left, deliveries)

    @property
    def events_kept_s(self) -> float:
        return timedelta(days=self.events_days).total_seconds()

    @property
    def resolved_alignment_dir(self) -> Path:
        return self.alignment_dir or self.data_dir / "alignments"

    @property
    def resolved_hub_dir(self) -> Path:
        return self.hub_dir or self.data_dir / "hub"

    @property
    def resolved_redis_url(self) -> str:
        return self.redis_url or "redis://127.0.0.1:6379/0"

    @property
    def visibility_timeout_s(self) -> float:
        """When the broker hands a message out again: later than the longest job can run."""
        return self.job_time_limit_s * 1.5 + 600

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'records.sqlite3'}"

    @property
    def resolved_storage_url(self) -> str:
        return self.storage_url or (self.data_dir.absolute() / "artifacts").as_uri()

    @property
    def resolved_model_root(self) -> Path:
        return self.model_root or self.data_dir / "models"

    @property
    def resolved_threads(self) -> int:
        """The cores that this process may use, unless a number is set; macOS only knows all."""
        if self.threads:
            return self.threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    @property
    def resolved_worker_silent_s(self) -> float:
        """A child at work shows itself three times a lease."""
        return max(self.worker_silent_s, self.lease_s)

    @property
    def health_dir(self) -> Path:
        """Where a machine's workers say how they are, for `worker-health`."""
        return self.data_dir.absolute() / "workers"

    @property
    def secrets(self) -> list[str]:
        """All that this process knows and no log line may show."""
        urls = (self.database_url, self.redis_url, self.storage_url, self.webhook_proxy)
        passwords = [part for url in urls for part in password_of(url)]
        own = [*self.hook_secrets, *filter(None, [self.metrics_secret])]
        return [*own, *passwords, *filter(None, secrets_in())]

    @property
    def staging_dir(self) -> Path:
        """Where uploads and results lie until they are published."""
        return self.data_dir.absolute() / "staging"
