"""Which caches hold alignments of which models: rows that workers write and the API lists."""

from collections.abc import Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.dialects import postgresql, sqlite

from app.domain.alignment import ListedPair, PairUsage
from app.storage.database import utc_now
from app.storage.tables import alignments

KEY = ("cache_id", "base_digest", "chat_digest")


def note_usages(connection: Connection, usages: Sequence[PairUsage]) -> None:
    """In one order, whoever calls: of two who note the same pairs each would wait for the other."""
    for usage in sorted(usages, key=attrgetter(*KEY)):
        _note(connection, usage)


def _note(connection: Connection, usage: PairUsage) -> None:
    """One statement, so that workers that note the same pair at once add up."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    now = utc_now(connection)
    new = dialect.insert(alignments).values(**asdict(usage), last_used=now)
    used = usage.hits + usage.misses > 0
    named = {"base_model": usage.base_model, "chat_model": usage.chat_model} if used else {}
    connection.execute(
        new.on_conflict_do_update(
            index_elements=KEY,
            set_={
                **named,
                "modules": usage.modules,
                "size_bytes": usage.size_bytes,
                "hits": alignments.c.hits + usage.hits,
                "misses": alignments.c.misses + usage.misses,
                "last_used": now if used else alignments.c.last_used,
            },
        )
    )


def to_listed_pair(row: Row[Any]) -> ListedPair:
    fields = PairUsage.__dataclass_fields__
    return ListedPair(PairUsage(**{name: getattr(row, name) for name in fields}), row.last_used)
