"""Safety modules and kits, each function in the caller's transaction."""

from sqlalchemy import ColumnElement, Connection, and_, select, update

from app.domain.salora import PART_NAMES, ListedPart, Part, PartKind
from app.domain.salora_errors import PartNotFound
from app.jobs.ports import Page
from app.storage.database import insert_if_absent, utc_now
from app.storage.pages import read_page
from app.storage.salora_rows import part_values, to_listed_part, to_part
from app.storage.tables import parts

LISTED = (
    "seq", "kind", "id", "created_at", "chat_model", "chat_digest", "size_bytes", "module_count"
)  # fmt: skip


def add_part(connection: Connection, tenant: str, part: Part) -> Part:
    """See `Records.add_part`."""
    values = part_values(part, tenant, utc_now(connection))
    if insert_if_absent(connection, parts, values):
        return part
    return use_part(connection, tenant, part.kind, part.id) or part


def use_part(connection: Connection, tenant: str, kind: PartKind, part_id: str) -> Part | None:
    """The part, noted as used; None where there is none."""
    used = update(parts).where(_is(tenant, kind, part_id)).values(used_at=utc_now(connection))
    row = connection.execute(used.returning(*parts.c)).one_or_none()
    return None if row is None else to_part(row)


def find_part(connection: Connection, tenant: str, kind: PartKind, part_id: str) -> Part:
    """Raises PartNotFound."""
    row = connection.execute(select(parts).where(_is(tenant, kind, part_id))).one_or_none()
    if row is None:
        raise PartNotFound(what=PART_NAMES[kind], id=part_id)
    return to_part(row)


def list_parts(
    connection: Connection, tenant: str, kind: PartKind, *, limit: int, cursor: str | None
) -> Page[ListedPart]:
    """Newest first. Raises InvalidField(field="cursor")."""
    return read_page(
        connection,
        parts,
        to_listed_part,
        columns=[parts.c[name] for name in LISTED],
        where=[parts.c.tenant == tenant, parts.c.kind == kind],
        limit=limit,
        cursor=cursor,
    )


def _is(tenant: str, kind: PartKind, part_id: str) -> ColumnElement[bool]:
    return and_(parts.c.tenant == tenant, parts.c.kind == kind, parts.c.id == part_id)
