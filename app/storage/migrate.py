"""The schema's migrations, from code: no alembic.ini, and safe to run from two processes at once.

A new one, from a checkout, after a change to `tables.py`:
`python -m app.storage.migrate sqlite:////tmp/scratch.sqlite3 "what changes"`
"""

import fcntl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, make_url, select

from app.domain.errors import InvalidField, Unavailable
from app.storage import verdict_tables  # noqa: F401 - because the metadata is whole with it alone
from app.storage.database import UNAVAILABLE, make_engine

MIGRATIONS = Path(__file__).parent / "migrations"
ADVISORY_LOCK = 0x5AFE_10AA  # any number that is ours: PostgreSQL's name for the migration lock
MIGRATION_WAIT_S = 60.0  # how long one process waits while another migrates

_alembic_lock = threading.Lock()  # because alembic keeps its running migration in module globals


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema up to date; makes a SQLite file and its folder. Raises Unavailable, and
    InvalidField for a schema of a later version of this service."""
    with _locked(url) as connection:
        _check_known(revision_of(connection))
        command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to `revision` ("base" for none). Raises Unavailable."""
    with _locked(url) as connection:
        command.downgrade(_config(connection), revision)


def current(url: str) -> str | None:
    """The schema's revision, None before the first upgrade. Raises Unavailable."""
    path = _sqlite_path(url)
    if path is not None and not path.exists():  # merely to look would make the file
        return None
    with _engine(url) as engine, engine.connect() as connection:
        return revision_of(connection)


def revision_of(connection: Connection) -> str | None:
    """The schema's revision as this connection sees it."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def head() -> str | None:
    """The revision that this code needs."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def knows(revision: str | None) -> bool:
    """Whether this code can bring a schema of that revision up to date."""
    script = ScriptDirectory(str(MIGRATIONS))
    return revision in {found.revision for found in script.walk_revisions()}


def _check_known(found: str | None) -> None:
    if found is not None and not knows(found):
        reason = f"its schema is {found}, of a later version of this service: run that one"
        raise InvalidField(field="database", reason=reason)


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    """A transaction that no other migration of this database overlaps."""
    with _alembic_lock, _sqlite_file_lock(url), _engine(url) as engine:
        if engine.dialect.name == "sqlite":
            _switch_to_wal(engine)
        with engine.execution_options(writes=True).begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
            yield connection


@contextmanager
def _sqlite_file_lock(url: str) -> Iterator[None]:
    """A lock on a file beside the database, because two processes that switch a new database to
    WAL at once do not wait for each other: one gets "database is locked"."""
    path = _sqlite_path(url)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sqlite_path(url: str) -> Path | None:
    """None for another database, and for one in memory."""
    parts = make_url(url)
    is_file = parts.get_backend_name() == "sqlite" and parts.database not in (None, "", ":memory:")
    return Path(str(parts.database)) if is_file else None


def _switch_to_wal(engine: Engine) -> None:
    """Readers then never wait for a writer. It is kept in the file, so once is enough."""
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode=WAL")
    finally:
        raw.close()


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    engine = make_engine(url, busy_timeout_s=MIGRATION_WAIT_S)
    try:
        yield engine
    except UNAVAILABLE as error:
        raise Unavailable(part="database") from error
    finally:
        engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    return config


def _write_revision(url: str, message: str) -> None:
    """Write the migration between the database's schema and the tables into `migrations/`."""
    upgrade(url)
    number = f"{int(head() or 0) + 1:04d}"
    with _locked(url) as connection:
        command.revision(_config(connection), message=message, autogenerate=True, rev_id=number)


if __name__ == "__main__":
    _write_revision(*sys.argv[1:])
