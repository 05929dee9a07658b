"""Counts for the figures: `Counting` of `app.jobs.figures`."""

from datetime import datetime

from sqlalchemy import Connection, func, select

from app.domain.job import JobKind, JobStatus
from app.domain.webhook import DeliveryState
from app.jobs.figures import Figures
from app.storage.database import Database, utc_now
from app.storage.tables import jobs, webhook_deliveries


class SqlFigures:
    """One transaction a look. Ended jobs are counted too, so it reads the whole table of jobs, as
    long as retention lets it grow; the caller keeps what it found for some seconds."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    def figures(self) -> Figures:
        """Raises Unavailable."""
        with self._database.read() as connection:
            return Figures(
                jobs=_jobs(connection),
                oldest_queued_s=_oldest_queued_s(connection),
                deliveries=_deliveries(connection),
            )

    def close(self) -> None:
        self._database.close()


def _jobs(connection: Connection) -> dict[tuple[JobKind, JobStatus], int]:
    columns = (jobs.c.kind, jobs.c.status)
    query = select(*columns, func.count()).group_by(*columns)
    return {(kind, status): count for kind, status, count in connection.execute(query)}


def _oldest_queued_s(connection: Connection) -> float:
    query = select(jobs.c.created_at).where(jobs.c.status == "queued")
    oldest: datetime | None = connection.scalar(query.order_by(jobs.c.seq).limit(1))
    return 0.0 if oldest is None else max((utc_now(connection) - oldest).total_seconds(), 0.0)


def _deliveries(connection: Connection) -> dict[DeliveryState, int]:
    state = webhook_deliveries.c.state
    query = select(state, func.count().label("deliveries")).group_by(state)
    return {row.state: row.deliveries for row in connection.execute(query)}
