"""Alembic runs this; `app.storage.migrate` hands it the connection, inside a transaction."""

from typing import Any, Literal

from alembic import context

from app.storage.tables import UtcDateTime, metadata


def _render(kind: str, item: Any, _autogen_context: Any) -> str | Literal[False]:
    """Write our own column type as what it is in the database: migrations import no app code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # because SQLite alters a table by copying it
    render_item=_render,
)
with context.begin_transaction():
    context.run_migrations()
