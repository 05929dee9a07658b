"""Tenants and API keys; what was there before belongs to the tenant `default`.

SQLite cannot change a constraint, and cannot drop a table that another refers to: there the three
tables are made anew beside the old ones, filled, and renamed.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ADAPTERS = ("seq", "id", "created_at", "files", "summary", "manifest")
JOBS = (
    "seq", "id", "kind", "status", "adapter", "base_model", "chat_model", "method", "modules",
    "created_at", "queued_at", "releases", "started_at", "finished_at", "lease_until", "attempts",
    "fence", "modules_done", "modules_total", "cancel_requested", "fault", "result",
)  # fmt: skip
KEYS = ("key", "request_sha256", "job", "created_at")


def upgrade() -> None:
    _make_api_keys()
    if op.get_context().dialect.name == "sqlite":
        _make_anew(with_tenants=True)
        return
    for table in ("adapters", "jobs", "idempotency_keys"):
        default = sa.Column("tenant", sa.String(64), nullable=False, server_default="default")
        op.add_column(table, default)
        op.alter_column(table, "tenant", server_default=None)
    op.add_column("adapters", sa.Column("uploaded_at", sa.DateTime(timezone=True)))
    op.add_column("adapters", sa.Column("size_bytes", sa.BigInteger()))
    _fill_adapters()
    op.alter_column("adapters", "uploaded_at", nullable=False)
    op.alter_column("adapters", "size_bytes", nullable=False)
    op.drop_constraint("fk_jobs_adapter", "jobs")
    op.drop_constraint("uq_adapters_id", "adapters")
    op.create_unique_constraint("uq_adapters_tenant_id", "adapters", ["tenant", "id"])
    op.create_foreign_key(
        "fk_jobs_tenant_adapter", "jobs", "adapters", ["tenant", "adapter"], ["tenant", "id"]
    )
    op.create_index("ix_jobs_tenant_seq", "jobs", ["tenant", "seq"])
    op.drop_constraint("pk_idempotency_keys", "idempotency_keys")
    op.create_primary_key("pk_idempotency_keys", "idempotency_keys", ["tenant", "key"])


def downgrade() -> None:
    """Keeps what is the tenant `default`'s, because the old schema knows one owner."""
    op.drop_table("api_keys")
    for table in ("idempotency_keys", "jobs", "adapters"):
        op.execute(f"DELETE FROM {table} WHERE tenant <> 'default'")  # noqa: S608 - our own names
    if op.get_context().dialect.name == "sqlite":
        _make_anew(with_tenants=False)
        return
    op.drop_constraint("pk_idempotency_keys", "idempotency_keys")
    op.create_primary_key("pk_idempotency_keys", "idempotency_keys", ["key"])
    op.drop_index("ix_jobs_tenant_seq", "jobs")
    op.drop_constraint("fk_jobs_tenant_adapter", "jobs")
    op.drop_constraint("uq_adapters_tenant_id", "adapters")
    op.create_unique_constraint("uq_adapters_id", "adapters", ["id"])
    op.create_foreign_key("fk_jobs_adapter", "jobs", "adapters", ["adapter"], ["id"])
    for table in ("adapters", "jobs", "idempotency_keys"):
        op.drop_column(table, "tenant")
    op.drop_column("adapters", "uploaded_at")
    op.drop_column("adapters", "size_bytes")


def _make_api_keys() -> None:
    op.create_table(
        "api_keys",
        _sequence(),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("id", name=op.f("uq_api_keys_id")),
        sqlite_autoincrement=True,
    )


def _fill_adapters() -> None:
    """In Python, because PostgreSQL takes nothing out of JSON that holds a NUL (a stranger's)."""
    rows = sa.table(
        "adapters",
        sa.column("seq", sa.BigInteger()),
        sa.column("created_at", sa.DateTime(timezone=True)),
        sa.column("uploaded_at", sa.DateTime(timezone=True)),
        sa.column("size_bytes", sa.BigInteger()),
        sa.column("summary", sa.JSON()),
    )
    connection = op.get_bind()
    sizes = {row.seq: row.summary["size_bytes"] for row in connection.execute(sa.select(rows))}
    for seq, size in sizes.items():
        change = {"uploaded_at": rows.c.created_at, "size_bytes": size}
        connection.execute(rows.update().where(rows.c.seq == seq).values(change))


# ------------------------------------------------------------------------------------------- SQLite
def _make_anew(*, with_tenants: bool) -> None:
    _new_adapters(with_tenants)
    _new_jobs(with_tenants)
    _new_keys(with_tenants)
    tables = {"adapters": ADAPTERS, "jobs": JOBS, "idempotency_keys": KEYS}
    for table, columns in tables.items():
        _copy(table, columns, with_tenants)
    for table in reversed(tables):
        op.drop_table(table)
    for table in tables:
        op.rename_table(f"new_{table}", table)
    op.create_index("ix_jobs_status_seq", "jobs", ["status", "seq"])
    if with_tenants:
        op.create_index("ix_jobs_tenant_seq", "jobs", ["tenant", "seq"])


def _copy(table: str, columns: Sequence[str], with_tenants: bool) -> None:
    names = ", ".join(f'"{name}"' for name in columns)
    into, of = (f"{names}, tenant", f"{names}, 'default'") if with_tenants else (names, names)
    if table == "adapters" and with_tenants:
        into, of = (
            f"{into}, uploaded_at, size_bytes",
            f"{of}, created_at, json_extract(summary, '$.size_bytes')",
        )
    op.execute(f"INSERT INTO new_{table} ({into}) SELECT {of} FROM {table}")  # noqa: S608 - our own names


def _sequence() -> "sa.Column[int]":
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("seq", kind, autoincrement=True, nullable=False)


def _tenant(wanted: bool) -> "list[sa.Column[str]]":
    return [sa.Column("tenant", sa.String(64), nullable=False)] if wanted else []


def _new_adapters(with_tenants: bool) -> None:
    added = (
        sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
    )
    unique = ["tenant", "id"] if with_tenants else ["id"]
    op.create_table(
        "new_adapters",
        _sequence(),
        *_tenant(with_tenants),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        *(added if with_tenants else ()),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_adapters")),
        sa.UniqueConstraint(*unique, name=op.f(f"uq_adapters_{'_'.join(unique)}")),
        sqlite_autoincrement=True,
    )


def _new_jobs(with_tenants: bool) -> None:
    own = ["tenant", "adapter"] if with_tenants else ["adapter"]
    theirs = ["new_adapters.tenant", "new_adapters.id"] if with_tenants else ["new_adapters.id"]

    op.create_table(
        "new_jobs",
        _sequence(),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        *_tenant(with_tenants),
        sa.Column("adapter", sa.String(64)),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("chat_model", sa.Text(), nullable=False),
        sa.Column("method", sa.JSON(), nullable=False),
        sa.Column("modules", sa.JSON()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("releases", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("attempts", "fence", "modules_done", "modules_total")
        ),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.JSON()),
        sa.Column("result", sa.JSON()),
        sa.ForeignKeyConstraint(own, theirs, name=op.f(f"fk_jobs_{'_'.join(own)}")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sqlite_autoincrement=True,
    )


def _new_keys(with_tenants: bool) -> None:
    own = ["tenant", "key"] if with_tenants else ["key"]
    op.create_table(
        "new_idempotency_keys",
        *_tenant(with_tenants),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job"],
            ["new_jobs.id"],
            name=op.f("fk_idempotency_keys_job"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint(*own, name=op.f("pk_idempotency_keys")),
    )
