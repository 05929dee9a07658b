"""The tables of the records. SQLite and PostgreSQL share them."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: takes any aware datetime, gives back an aware one in UTC.

    SQLite has no time zones, so there UTC without its offset is what is stored.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone is not a moment")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# because SQLite autoincrements only a column that is declared INTEGER
Sequence = BigInteger().with_variant(Integer(), "sqlite")

adapters = Table(
    "adapters",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),  # order of arrival
    Column("tenant", String(64), nullable=False),  # whose it is; the same content may be several's
    Column("id", String(64), nullable=False),  # SHA-256, hex
    Column("created_at", UtcDateTime, nullable=False),
    Column("uploaded_at", UtcDateTime, nullable=False),  # the last time
    Column("size_bytes", BigInteger, nullable=False),
    Column("files", JSON, nullable=False),  # {name: {sha256, size_bytes}}
    Column("summary", JSON, nullable=False),  # {size_bytes, modules, base_model_name}, for listings
    # JSON, not columns, because it comes from strangers (PostgreSQL text refuses NUL) and is only
    # ever read whole
    Column("manifest", JSON, nullable=False),  # {modules, dropped_keys, base_model_name, peft_type}
    UniqueConstraint("tenant", "id"),
    sqlite_autoincrement=True,
)

jobs = Table(
    "jobs",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),  # order of arrival
    Column("id", String(64), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("adapter", String(64)),
    Column("base_model", Text),  # null where nothing is compared with it
    Column("chat_model", Text, nullable=False),
    Column("method", JSON, nullable=False),
    Column("modules", JSON(none_as_null=True)),  # what an alignment is of
    Column("recipe", JSON(none_as_null=True)),  # of SaLoRA's and the measuring kinds, or a gate
    Column("created_at", UtcDateTime, nullable=False),
    Column("queued_at", UtcDateTime, nullable=False),  # when it was last sent to the queue
    Column("releases", Integer, nullable=False),  # how often it was given back in a row
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("lease_until", UtcDateTime),  # set while running
    Column("attempts", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("modules_done", Integer, nullable=False),
    Column("modules_total", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("fault", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("checkpoint", JSON(none_as_null=True)),  # {step, file}, the last
    Column("revisions", JSON(none_as_null=True)),  # {model as named: commit SHA}, of the hub's
    Column("request_id", String(64)),  # of the request that submitted it
    Column("traceparent", String(64)),  # W3C's, where it is traced
    ForeignKeyConstraint(["tenant", "adapter"], [adapters.c.tenant, adapters.c.id]),
    Index(None, "status", "seq"),
    Index(None, "tenant", "seq"),
    sqlite_autoincrement=True,
)

datasets = Table(
    "datasets",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),  # order of arrival
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False),  # SHA-256 of the file, hex
    Column("created_at", UtcDateTime, nullable=False),
    Column("uploaded_at", UtcDateTime, nullable=False),  # the last time
    Column("size_bytes", BigInteger, nullable=False),
    Column("file", JSON, nullable=False),  # {sha256, size_bytes}
    Column("rows", Integer, nullable=False),
    Column("prompt_characters", BigInteger, nullable=False),
    Column("response_characters", BigInteger, nullable=False),
    Column("tokens", JSON, nullable=False),  # {model id: {prompt, response}}
    Column("unanswered", Integer, nullable=False, server_default="0"),  # rows without a response
    UniqueConstraint("tenant", "id"),
    sqlite_autoincrement=True,
)

parts = Table(
    "parts",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),  # order of making
    Column("tenant", String(64), nullable=False),
    Column("kind", String(32), nullable=False),  # safety_module or kit
    Column("id", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime, nullable=False),  # made, found or named, the last time
    Column("chat_model", Text, nullable=False),
    Column("chat_digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("module_count", Integer, nullable=False),  # for listings
    Column("file", JSON, nullable=False),  # {sha256, size_bytes}
    Column("report", JSON, nullable=False),  # {sha256, size_bytes}
    Column("modules", JSON, nullable=False),  # [{name, d_out, d_in, rank}]
    Column("made_of", JSON, nullable=False),
    UniqueConstraint("tenant", "kind", "id"),
    sqlite_autoincrement=True,
)

job_uses = Table(
    "job_uses",  # what a job names besides its adapter, or made: it stays as long as the job
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("job", String(64), ForeignKey(jobs.c.id), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("dataset", String(64)),  # this
    Column("part_kind", String(32)),  # or these two
    Column("part", String(64)),
    Column("adapter", String(64)),  # or this, of an evaluation
    Column("made_by", String(64), ForeignKey(jobs.c.id)),  # or what this job has made
    ForeignKeyConstraint(["tenant", "dataset"], [datasets.c.tenant, datasets.c.id]),
    ForeignKeyConstraint(
        ["tenant", "part_kind", "part"], [parts.c.tenant, parts.c.kind, parts.c.id]
    ),
    ForeignKeyConstraint(["tenant", "adapter"], [adapters.c.tenant, adapters.c.id]),
    Index(None, "job"),
    Index(None, "tenant", "dataset"),
    Index(None, "tenant", "part_kind", "part"),
    Index(None, "tenant", "adapter"),
    Index(None, "made_by"),
    sqlite_autoincrement=True,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    # deferred, because the key goes in before its job: the key decides who wins a race
    Column(
        "job",
        String(64),
        ForeignKey(jobs.c.id, deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    Column("created_at", UtcDateTime, nullable=False),
)

alignments = Table(
    "alignments",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),  # order of arrival
    Column("cache_id", String(64), nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("chat_digest", String(64), nullable=False),
    Column("base_model", Text, nullable=False),  # the names that it was last used under
    Column("chat_model", Text, nullable=False),
    Column("modules", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("hits", BigInteger, nullable=False),
    Column("misses", BigInteger, nullable=False),
    Column("last_used", UtcDateTime, nullable=False),
    UniqueConstraint("cache_id", "base_digest", "chat_digest"),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),  # the part of a key that is no secret
    Column("secret_sha256", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),  # names, in a list
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),  # within a minute
    Column("revoked_at", UtcDateTime),
    sqlite_autoincrement=True,
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),  # order of making
    Column("id", String(64), nullable=False, unique=True),
    Column("tenant", String(64), nullable=False),
    Column("url", Text, nullable=False),
    Column("events", JSON, nullable=False),  # types, in a list
    Column("description", Text, nullable=False),
    # [{text, created_at, expires_at}], newest first: as they are, because they sign
    Column("secrets", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    Column("disabled_reason", Text),
    Index(None, "tenant", "seq"),
    sqlite_autoincrement=True,
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),  # order of events
    Column("id", String(64), nullable=False, unique=True),
    Column("endpoint", String(64), ForeignKey(webhook_endpoints.c.id), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("event_type", String(64), nullable=False),
    Column("event", String(64), nullable=False),  # the webhook-id
    Column("body", Text, nullable=False),  # ASCII, the bytes that are signed
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # ever
    Column("tried", Integer, nullable=False),  # of the schedule, which a redelivery begins anew
    Column("due_at", UtcDateTime, nullable=False),
    Column("lease", String(64)),  # of the sender that is at it
    Column("lease_until", UtcDateTime),
    Column("log", JSON, nullable=False),  # the last attempts, oldest first
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("endpoint", "event"),
    Index(None, "state", "due_at"),
    Index(None, "endpoint", "seq"),
    sqlite_autoincrement=True,
)
