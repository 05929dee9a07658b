"""Who may do what: API keys, their scopes, and the tenant whose data they see."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from app.domain.errors import InvalidField

Scope = Literal["submit", "read", "transcripts", "admin"]
"""`read`: look at and download what is there, but for transcripts. `submit`: upload, submit and
cancel. `transcripts`: download them, because answers to harmful prompts are not for everyone who
may read reports. `admin`: all."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_TENANT = "default"
MAX_NAME_CHARS = 100
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ApiKey:
    """A key as it is kept: its secret is not."""

    id: str  # the part that is shown and logged
    name: str
    tenant: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class Caller:
    """Who a request comes from."""

    tenant: str
    scopes: frozenset[Scope]
    key: str | None  # the key's id; None where the service asks for none

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


LOCAL = Caller(DEFAULT_TENANT, frozenset(SCOPES), None)
"""Whoever reaches a service that listens on this machine alone."""


@dataclass(frozen=True)
class Quotas:
    """What one tenant may have at once; None is no bound."""

    queued_jobs: int | None = None  # that have not ended
    stored_bytes: int | None = None  # of its adapters


NO_QUOTAS = Quotas()


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """`"submit,read"`. Raises InvalidField."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or any(name not in SCOPES for name in names):
        raise InvalidField(field="scope", reason=f"one or several of {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in names)


def check_tenant(tenant: str) -> str:
    """Raises InvalidField."""
    if not _TENANT.fullmatch(tenant):
        reason = "1 to 64 of a-z, 0-9, dot, dash and underscore, a letter or digit first"
        raise InvalidField(field="tenant", reason=reason)
    return tenant


def check_name(name: str) -> str:
    """Raises InvalidField."""
    if not (1 <= len(name) <= MAX_NAME_CHARS and name.isprintable()):
        raise InvalidField(field="name", reason=f"1 to {MAX_NAME_CHARS} printable characters")
    return name


def live(keys: Sequence[ApiKey]) -> list[ApiKey]:
    """Those that have not been revoked."""
    return [key for key in keys if key.revoked_at is None]
