"""The one door to the database: engines as SQLite and PostgreSQL need them, and transactions."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    exc,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.errors import Unavailable

BUSY_TIMEOUT_S = 10.0  # how long a SQLite writer waits for another
CONNECT_TIMEOUT_S = 5
TCP_USER_TIMEOUT_MS = 10_000  # a PostgreSQL that vanished without a FIN is noticed after this

UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.DisconnectionError, exc.TimeoutError)


def make_engine(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine for `sqlite:///...` or `postgresql+psycopg://...`; connects on first use."""
    if make_url(url).get_backend_name() == "sqlite":
        return _sqlite_engine(url, busy_timeout_s)
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=BUSY_TIMEOUT_S,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
        },
    )


def _sqlite_engine(url: str, busy_timeout_s: float) -> Engine:
    engine = create_engine(
        url, pool_timeout=busy_timeout_s, connect_args={"timeout": busy_timeout_s}
    )

    @event.listens_for(engine, "connect")
    def _on_connect(dbapi_connection: Any, _record: object) -> None:
        dbapi_connection.isolation_level = None  # because sqlite3 would begin transactions itself
        dbapi_connection.execute("PRAGMA synchronous=NORMAL")
        dbapi_connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # A writer takes the write lock at once: one that read first and then wanted to write
        # would fail with SQLITE_BUSY, however long it were ready to wait.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def utc_now(connection: Connection) -> datetime:
    """The database's clock, so that leases do not depend on how well the workers' clocks agree.

    SQLite is a file on this machine: its clock is ours.
    """
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)


def insert_if_absent(connection: Connection, table: Table, values: dict[str, Any]) -> bool:
    """Insert a row; False when a unique value of it is taken (a racing insert is waited for)."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    insert = dialect.insert(table).values(values).on_conflict_do_nothing()
    inserted = connection.execute(insert.returning(*table.primary_key.columns))
    return inserted.first() is not None


class Database:
    """Transactions on one database. The engine is made on first use, and anew after a fork."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._pid = 0

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises Unavailable."""
        with _answering(), self.engine().begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes; it commits at the end of the block. Raises Unavailable."""
        with _answering(), self.engine().execution_options(writes=True).begin() as connection:
            yield connection

    def engine(self) -> Engine:
        """This process's engine."""
        with self._lock:
            if self._engine is not None and self._pid != os.getpid():
                self._engine.dispose(close=False)  # because the connections are the parent's
                self._engine = None
            if self._engine is None:
                self._engine, self._pid = make_engine(self._url), os.getpid()
            return self._engine

    def close(self) -> None:
        """Close the connections; the next transaction opens new ones."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose(close=self._pid == os.getpid())
                self._engine = None


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except UNAVAILABLE as error:
        raise Unavailable(part="database") from error
