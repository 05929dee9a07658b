"""API keys in the records' database: made once, shown once, kept as a hash.

A secret has 256 random bits, so one SHA-256 keeps it: there is nothing to guess that a slow hash
would slow down (unlike a password).
"""

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, literal, or_, select, update

from app.domain.access import DEFAULT_TENANT, ApiKey, Scope, check_name, check_tenant
from app.domain.access_errors import KeyNotFound
from app.jobs.ports import Page
from app.storage.database import Database, utc_now
from app.storage.pages import read_page
from app.storage.tables import UtcDateTime, api_keys

PREFIX = "ask"  # so that scanners of leaked secrets can know one
SECRET_BYTES = 32
NOTED_EVERY = timedelta(minutes=1)  # because a write a request would be the slowest part of it
_KEY = re.compile(rf"{PREFIX}_([0-9a-f]{{16}})_([A-Za-z0-9_-]{{43}})")
_ID = re.compile(r"[0-9a-f]{16}")
_NOBODY = hashlib.sha256(b"").hexdigest()


class SqlKeys:
    """`Keys` of `app.jobs.ports`."""

    def __init__(self, url: str) -> None:
        self._database, self._tenant = Database(url), DEFAULT_TENANT
        self._whose: list[ColumnElement[bool]] = []  # conditions; the operator sees every tenant's

    def close(self) -> None:
        self._database.close()

    def of(self, tenant: str) -> "SqlKeys":
        """Those of one tenant, over the same connections."""
        own = copy(self)
        own._tenant, own._whose = tenant, [api_keys.c.tenant == tenant]
        return own

    def issue(self, name: str, scopes: Sequence[Scope]) -> tuple[ApiKey, str]:
        """As `create`, for the tenant whose keys these are."""
        return self.create(name, self._tenant, scopes)

    def create(self, name: str, tenant: str, scopes: Sequence[Scope]) -> tuple[ApiKey, str]:
        """The key and its text, which is nowhere afterwards. Raises InvalidField."""
        key = ApiKey(
            id=uuid.uuid4().hex[:16],
            name=check_name(name),
            tenant=check_tenant(tenant),
            scopes=tuple(scopes),
            created_at=datetime.now(UTC),
        )
        secret = secrets.token_urlsafe(SECRET_BYTES)
        values = {**vars(key), "scopes": list(scopes), "secret_sha256": _sha256(secret)}
        with self._database.write() as connection:
            connection.execute(api_keys.insert().values(values))
        return key, f"{PREFIX}_{key.id}_{secret}"

    def verify(self, text: str) -> ApiKey | None:
        """The live key that `text` is; None for anything else. Takes as long for a key that is not
        there as for a wrong secret."""
        match = _KEY.fullmatch(text)
        key_id, secret = match.groups() if match else ("", "")
        with self._database.read() as connection:
            row = _find(connection, key_id)
            now = utc_now(connection)
        expected = row.secret_sha256 if row else _NOBODY
        if not hmac.compare_digest(_sha256(secret), expected) or row is None or row.revoked_at:
            return None
        if row.last_used_at is None or now - row.last_used_at >= NOTED_EVERY:
            self._note_use(key_id, now)
        return _to_key(row)

    def _note_use(self, key_id: str, now: datetime) -> None:
        used = api_keys.c.last_used_at
        noted = (
            update(api_keys)
            .where(api_keys.c.id == key_id, or_(used.is_(None), used < now))
            .values(last_used_at=now)
        )
        with self._database.write() as connection:
            connection.execute(noted)

    def revoke(self, key_id: str) -> ApiKey:
        """From now on the key is nobody's. Raises KeyNotFound."""
        if not _ID.fullmatch(key_id):
            raise KeyNotFound(key=key_id)
        with self._database.write() as connection:
            now = utc_now(connection)
            revoked = (
                update(api_keys)
                .where(api_keys.c.id == key_id, *self._whose)
                .values(
                    revoked_at=func.coalesce(api_keys.c.revoked_at, literal(now, UtcDateTime()))
                )
            )
            row = connection.execute(revoked.returning(*api_keys.c)).one_or_none()
        if row is None:
            raise KeyNotFound(key=key_id)
        return _to_key(row)

    def all(self) -> list[ApiKey]:
        """Oldest first, revoked ones too."""
        with self._database.read() as connection:
            found = select(api_keys).where(*self._whose).order_by(api_keys.c.seq)
            rows = connection.execute(found).all()
        return [_to_key(row) for row in rows]

    def page(self, *, limit: int, cursor: str | None) -> Page[ApiKey]:
        """Newest first, revoked ones too. Raises InvalidField(field="cursor")."""
        with self._database.read() as connection:
            return read_page(
                connection, api_keys, _to_key, where=[*self._whose], limit=limit, cursor=cursor
            )


def _find(connection: Connection, key_id: str) -> Row[Any] | None:
    return connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _to_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
