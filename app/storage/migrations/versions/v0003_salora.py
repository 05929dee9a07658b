"""Data sets, safety modules and kits, and the jobs that make and use them.

SQLite cannot take a NOT NULL away: there the jobs are made anew beside the old ones, as in 0002,
and with them the keys, which refer to them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JOBS = (
    "seq", "id", "kind", "status", "tenant", "adapter", "base_model", "chat_model", "method",
    "modules", "created_at", "queued_at", "releases", "started_at", "finished_at", "lease_until",
    "attempts", "fence", "modules_done", "modules_total", "cancel_requested", "fault", "result",
)  # fmt: skip
KEYS = ("tenant", "key", "request_sha256", "job", "created_at")
NEW_KINDS = ("safety_module", "salora_init", "salora_train", "salora_export")


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _make_anew(with_salora=True)
    else:
        op.alter_column("jobs", "base_model", existing_type=sa.Text(), nullable=True)
        op.add_column("jobs", sa.Column("recipe", sa.JSON(none_as_null=True)))
        op.add_column("jobs", sa.Column("checkpoint", sa.JSON(none_as_null=True)))
    _make_datasets()
    _make_parts()
    _make_job_uses()


def downgrade() -> None:
    """Forgets the jobs that the old code cannot read."""
    for table in ("job_uses", "parts", "datasets"):
        op.drop_table(table)
    _forget_new_jobs()
    if op.get_context().dialect.name == "sqlite":
        _make_anew(with_salora=False)
        return
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")  # because no table changes while a check is due
    op.drop_column("jobs", "checkpoint")
    op.drop_column("jobs", "recipe")
    op.alter_column("jobs", "base_model", existing_type=sa.Text(), nullable=False)


def _forget_new_jobs() -> None:
    jobs = sa.table(
        "jobs",
        sa.column("id", sa.String()),
        sa.column("kind", sa.String()),
        sa.column("base_model", sa.Text()),
        sa.column("method", sa.JSON()),
    )
    keys = sa.table("idempotency_keys", sa.column("job", sa.String()))
    is_new = sa.or_(
        jobs.c.kind.in_(NEW_KINDS),
        jobs.c.base_model.is_(None),
        jobs.c.method["name"].as_string() == "salora",
    )
    op.execute(keys.delete().where(keys.c.job.in_(sa.select(jobs.c.id).where(is_new))))
    op.execute(jobs.delete().where(is_new))


def _sequence() -> "sa.Column[int]":
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("seq", kind, autoincrement=True, nullable=False)


def _make_datasets() -> None:
    op.create_table(
        "datasets",
        _sequence(),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("uploaded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.JSON(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("prompt_characters", sa.BigInteger(), nullable=False),
        sa.Column("response_characters", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_datasets")),
        sa.UniqueConstraint("tenant", "id", name=op.f("uq_datasets_tenant_id")),
        sqlite_autoincrement=True,
    )


def _make_parts() -> None:
    op.create_table(
        "parts",
        _sequence(),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("chat_model", sa.Text(), nullable=False),
        sa.Column("chat_digest", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("module_count", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.JSON(), nullable=False)
            for name in ("file", "report", "modules", "made_of")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_parts")),
        sa.UniqueConstraint("tenant", "kind", "id", name=op.f("uq_parts_tenant_kind_id")),
        sqlite_autoincrement=True,
    )


def _make_job_uses() -> None:
    part = ["tenant", "part_kind", "part"]
    op.create_table(
        "job_uses",
        _sequence(),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("dataset", sa.String(64)),
        sa.Column("part_kind", sa.String(32)),
        sa.Column("part", sa.String(64)),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_job_uses")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_uses_job")),
        sa.ForeignKeyConstraint(
            ["tenant", "dataset"],
            ["datasets.tenant", "datasets.id"],
            name=op.f("fk_job_uses_tenant_dataset"),
        ),
        sa.ForeignKeyConstraint(
            part,
            ["parts.tenant", "parts.kind", "parts.id"],
            name=op.f("fk_job_uses_tenant_part_kind_part"),
        ),
        sqlite_autoincrement=True,
    )
    for columns in (["job"], ["tenant", "dataset"], part):
        op.create_index(f"ix_job_uses_{'_'.join(columns)}", "job_uses", columns)


# ------------------------------------------------------------------------------------------- SQLite
def _make_anew(*, with_salora: bool) -> None:
    _new_jobs(with_salora)
    _new_keys()
    tables = {"jobs": JOBS, "idempotency_keys": KEYS}
    for table, columns in tables.items():
        names = ", ".join(f'"{name}"' for name in columns)
        op.execute(f"INSERT INTO new_{table} ({names}) SELECT {names} FROM {table}")  # noqa: S608 - our own names
    for table in reversed(tables):
        op.drop_table(table)
    for table in tables:
        op.rename_table(f"new_{table}", table)
    op.create_index("ix_jobs_status_seq", "jobs", ["status", "seq"])
    op.create_index("ix_jobs_tenant_seq", "jobs", ["tenant", "seq"])


def _new_jobs(with_salora: bool) -> None:
    added = (sa.Column("recipe", sa.JSON()), sa.Column("checkpoint", sa.JSON()))
    op.create_table(
        "new_jobs",
        _sequence(),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("adapter", sa.String(64)),
        sa.Column("base_model", sa.Text(), nullable=with_salora),
        sa.Column("chat_model", sa.Text(), nullable=False),
        sa.Column("method", sa.JSON(), nullable=False),
        sa.Column("modules", sa.JSON()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("releases", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.DateTime(timezone=True))
            for name in ("started_at", "finished_at", "lease_until")
        ),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("attempts", "fence", "modules_done", "modules_total")
        ),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("fault", sa.JSON()),
        sa.Column("result", sa.JSON()),
        *(added if with_salora else ()),
        sa.ForeignKeyConstraint(
            ["tenant", "adapter"],
            ["adapters.tenant", "adapters.id"],
            name=op.f("fk_jobs_tenant_adapter"),
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sqlite_autoincrement=True,
    )


def _new_keys() -> None:
    op.create_table(
        "new_idempotency_keys",
        sa.Column("tenant", sa.String(64), nullable=False),
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
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("pk_idempotency_keys")),
    )
