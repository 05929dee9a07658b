"""The table of verdicts, beside the others of the records."""

from sqlalchemy import JSON, Column, Index, Integer, String, Table, Text, UniqueConstraint

from app.storage.tables import Sequence, UtcDateTime, metadata

verdicts = Table(
    "verdicts",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),  # order of arrival
    Column("id", String(64), nullable=False, unique=True),
    Column("tenant", String(64), nullable=False),
    Column("webhook", String(128), nullable=False),  # the hub's id, of the first that told
    Column("hub_repo", String(128), nullable=False),  # the hub's id
    Column("repo", String(256), nullable=False),  # "org/name"
    Column("ref", String(256), nullable=False),
    Column("sha", String(40), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("state", String(16), nullable=False),
    Column("since", UtcDateTime, nullable=False),  # in this state
    Column("due_at", UtcDateTime, nullable=False),
    Column("lease_until", UtcDateTime),  # set while a process is at it
    Column("fence", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("tried_since", UtcDateTime),  # the first of these attempts
    Column("tries", Integer, nullable=False),
    Column("trouble", Text, nullable=False),
    Column("verdict", String(16)),
    Column("why", Text, nullable=False),
    Column("adapter", String(64)),  # not a foreign key: evidence outlives what it is of
    Column("job", String(64)),  # the same
    Column("thread", Integer),  # number of the discussion or pull request it has opened
    Column("patched", String(64)),  # content id of the patch that it has proposed
    # JSON, because a stranger's text is in it
    Column("plan", JSON(none_as_null=True)),  # the parts of the policy that decide
    Column("evidence", JSON, nullable=False),  # {base_name, unread, numbers, revisions, fault}
    Column("actions", JSON, nullable=False),
    UniqueConstraint("tenant", "hub_repo", "ref", "sha"),
    Index(None, "state", "due_at"),
    Index(None, "tenant", "seq"),
    Index(None, "hub_repo", "seq"),
    sqlite_autoincrement=True,
)
