"""Adapters, each function in the caller's transaction."""

from sqlalchemy import Connection, select, update

from app.domain.adapter import ListedAdapter, StoredAdapter
from app.domain.errors import AdapterNotFound
from app.jobs.ports import Page
from app.storage.database import insert_if_absent, utc_now
from app.storage.pages import read_page
from app.storage.quotas import check_bytes
from app.storage.rows import adapter_values, to_adapter, to_listed_adapter
from app.storage.tables import adapters


def add_adapter(
    connection: Connection, tenant: str, adapter: StoredAdapter, most_bytes: int | None
) -> bool:
    """See `Records.add_adapter`."""
    if _touch(connection, tenant, adapter):
        return False
    check_bytes(connection, tenant, adapter.size_bytes, most_bytes)
    return insert_if_absent(connection, adapters, adapter_values(adapter, tenant))


def _touch(connection: Connection, tenant: str, adapter: StoredAdapter) -> bool:
    """Note that an adapter came again; False where it is not there yet."""
    again = (
        update(adapters)
        .where(adapters.c.tenant == tenant, adapters.c.id == adapter.id)
        .values(uploaded_at=utc_now(connection))
    )
    return connection.execute(again).rowcount > 0


def find_adapter(connection: Connection, tenant: str, adapter_id: str) -> StoredAdapter:
    """Raises AdapterNotFound."""
    query = select(adapters).where(adapters.c.tenant == tenant, adapters.c.id == adapter_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise AdapterNotFound(adapter=adapter_id)
    return to_adapter(row)


def list_adapters(
    connection: Connection, tenant: str, *, limit: int, cursor: str | None
) -> Page[ListedAdapter]:
    """Newest first. Raises InvalidField(field="cursor")."""
    return read_page(
        connection,
        adapters,
        to_listed_adapter,
        columns=[adapters.c[name] for name in ("seq", "id", "created_at", "summary")],
        where=[adapters.c.tenant == tenant],
        limit=limit,
        cursor=cursor,
    )
