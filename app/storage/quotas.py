"""What a tenant may have at once, checked in the transaction that would add to it."""

import hashlib

from sqlalchemy import Connection, Table, func, select

from app.domain.access_errors import QuotaExceeded
from app.domain.job import FINAL
from app.storage.tables import adapters, datasets, jobs

RETRY_AFTER_S = 60


def check_bytes(connection: Connection, tenant: str, added: int, most: int | None) -> None:
    """Raises QuotaExceeded where what the tenant has uploaded would be over `most` bytes."""
    if most is None:
        return
    one_at_a_time(connection, tenant)
    stored = sum(_bytes_of(connection, tenant, table) for table in (adapters, datasets))
    if stored + added > most:
        what = "bytes of adapters and data sets"
        raise QuotaExceeded(what=what, limit=most, retry_after_s=RETRY_AFTER_S)


def _bytes_of(connection: Connection, tenant: str, table: Table) -> int:
    query = select(func.coalesce(func.sum(table.c.size_bytes), 0)).where(table.c.tenant == tenant)
    return int(connection.execute(query).scalar_one())


def check_queued(connection: Connection, tenant: str, most: int | None) -> None:
    """Raises QuotaExceeded where the tenant has `most` jobs that have not ended."""
    if most is None:
        return
    one_at_a_time(connection, tenant)
    query = select(func.count()).where(jobs.c.tenant == tenant, jobs.c.status.not_in(FINAL))
    if int(connection.execute(query).scalar_one()) >= most:
        raise QuotaExceeded(
            what="jobs that have not ended", limit=most, retry_after_s=RETRY_AFTER_S
        )


def one_at_a_time(connection: Connection, tenant: str) -> None:
    """Until the transaction ends nobody else counts this tenant's; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        number = int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8], signed=True)
        connection.execute(select(func.pg_advisory_xact_lock(number)))
