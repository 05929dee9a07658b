"""What the settings' addresses have to be, checked when the settings are read."""

import ipaddress
from importlib.util import find_spec
from typing import Annotated

from pydantic import AfterValidator

from app.config_outside import Names

POSTGRES = "postgresql+psycopg"


def _scheme(url: str) -> str:
    return url.partition(":")[0]


def _checked_database(url: str | None) -> str | None:
    """Raises ValueError."""
    scheme = _scheme(url or "sqlite:")
    if scheme in ("postgres", "postgresql"):
        raise ValueError(f"PostgreSQL's address begins with {POSTGRES}://")
    if scheme not in ("sqlite", POSTGRES):
        raise ValueError(f"must be sqlite:////folder/file or {POSTGRES}://user@host/name")
    if scheme == POSTGRES and find_spec("psycopg") is None:
        raise ValueError("PostgreSQL needs the extra: pip install 'adapter-safety[postgres]'")
    return url


def _checked_storage(url: str | None) -> str | None:
    """Raises ValueError."""
    if url is not None and _scheme(url) not in ("s3", "file"):
        raise ValueError("must be s3://bucket/prefix or file:///folder")
    return url


def _checked_redis(url: str | None) -> str | None:
    """Raises ValueError."""
    if url is not None and _scheme(url) not in ("redis", "rediss", "unix"):
        raise ValueError("must be redis://host:port/db, rediss://... or unix:///path.sock")
    return url


def _checked_proxies(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError."""
    for entry in entries:
        if entry != "*":
            ipaddress.ip_network(entry, strict=False)
    return entries


DatabaseUrl = Annotated[str | None, AfterValidator(_checked_database)]
StorageUrl = Annotated[str | None, AfterValidator(_checked_storage)]
RedisUrl = Annotated[str | None, AfterValidator(_checked_redis)]
Proxies = Annotated[Names, AfterValidator(_checked_proxies)]
