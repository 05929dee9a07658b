"""Cursor pagination, newest first, over a table's `seq`."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Row, Table, select

from app.domain.errors import InvalidField
from app.jobs.ports import Page

T = TypeVar("T")
MAX_CURSOR_CHARS = 64


def read_page(
    connection: Connection,
    table: Table,
    to_item: Callable[[Row[Any]], T],
    *,
    columns: Sequence[Column[Any]] = (),
    where: list[ColumnElement[bool]],
    limit: int,
    cursor: str | None,
) -> Page[T]:
    """The `limit` newest rows older than `cursor`. Raises InvalidField(field="cursor").

    `columns` (`seq` among them) are what `to_item` needs; all, if none are named.
    """
    if cursor is not None:
        where = [*where, table.c.seq < decode_cursor(table.name, cursor)]
    # one row more than asked for tells whether there is a next page
    query = (
        select(*(columns or table.c)).where(*where).order_by(table.c.seq.desc()).limit(limit + 1)
    )
    rows = connection.execute(query).all()
    shown = rows[:limit]
    more = len(rows) > limit and len(shown) > 0
    following = encode_cursor(table.name, shown[-1].seq) if more else None
    return Page([to_item(row) for row in shown], following)


def encode_cursor(listing: str, seq: int) -> str:
    """An opaque, URL-safe cursor that asks for the rows older than `seq`."""
    return base64.urlsafe_b64encode(f"{listing}:{seq}".encode()).decode().rstrip("=")


def decode_cursor(listing: str, cursor: str) -> int:
    """The `seq` in a cursor that `encode_cursor` made for this listing."""
    refused = InvalidField(field="cursor", reason="not a cursor that this listing gave")
    if len(cursor) > MAX_CURSOR_CHARS:
        raise refused
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise refused from None
    match = re.fullmatch(rf"{listing}:([0-9]{{1,18}})", text)
    if match is None:
        raise refused
    return int(match[1])
