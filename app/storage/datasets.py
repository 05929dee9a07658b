"""Data sets, each function in the caller's transaction."""

from sqlalchemy import Connection, select, update

from app.domain.dataset import StoredDataset
from app.domain.salora_errors import DatasetNotFound
from app.jobs.ports import Page
from app.storage.database import insert_if_absent, utc_now
from app.storage.pages import read_page
from app.storage.quotas import check_bytes
from app.storage.salora_rows import dataset_values, to_dataset, tokens_json
from app.storage.tables import datasets


def add_dataset(
    connection: Connection, tenant: str, dataset: StoredDataset, most_bytes: int | None
) -> bool:
    """See `Records.add_dataset`."""
    now = utc_now(connection)
    if _came_again(connection, tenant, dataset):
        return False
    check_bytes(connection, tenant, dataset.file.size_bytes, most_bytes)
    if insert_if_absent(connection, datasets, dataset_values(dataset, tenant, now)):
        return True
    _came_again(connection, tenant, dataset)  # it came in a racing request, without these counts
    return False


def _came_again(connection: Connection, tenant: str, dataset: StoredDataset) -> bool:
    """Note it, and its counts beside those that are there; False where it is not there yet."""
    of_it = (datasets.c.tenant == tenant) & (datasets.c.id == dataset.id)
    query = select(datasets.c.tokens).where(of_it).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        return False
    tokens = {**row.tokens, **tokens_json(dataset.tokens)}
    connection.execute(
        update(datasets).where(of_it).values(uploaded_at=utc_now(connection), tokens=tokens)
    )
    return True


def find_dataset(connection: Connection, tenant: str, dataset_id: str) -> StoredDataset:
    """Raises DatasetNotFound."""
    query = select(datasets).where(datasets.c.tenant == tenant, datasets.c.id == dataset_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise DatasetNotFound(dataset=dataset_id)
    return to_dataset(row)


def list_datasets(
    connection: Connection, tenant: str, *, limit: int, cursor: str | None
) -> Page[StoredDataset]:
    """Newest first. Raises InvalidField(field="cursor")."""
    where = [datasets.c.tenant == tenant]
    return read_page(connection, datasets, to_dataset, where=where, limit=limit, cursor=cursor)
