"""Evaluations: what they name, and data sets with rows that have no response.

SQLite cannot add a constraint: there `job_uses`, which nothing refers to, is made anew beside the
old one, as in 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

USES = ("seq", "job", "tenant", "dataset", "part_kind", "part")
NEW_KINDS = ("evaluate", "frontier")
ADDED = {"adapter": ["tenant", "adapter"], "made_by": ["made_by"]}
"""The new columns of `job_uses`, and what is indexed of each."""


def upgrade() -> None:
    unanswered = sa.Column("unanswered", sa.Integer(), nullable=False, server_default="0")
    op.add_column("datasets", unanswered)
    if op.get_context().dialect.name == "sqlite":
        _make_anew(with_evaluations=True)
    else:
        _add_columns()
    for columns in ADDED.values():
        op.create_index(f"ix_job_uses_{'_'.join(columns)}", "job_uses", columns)


def downgrade() -> None:
    """Forgets the jobs that the old code cannot read, and the data sets in which it would miss
    responses."""
    _forget_new()
    if op.get_context().dialect.name == "sqlite":
        _make_anew(with_evaluations=False)
    else:
        op.execute("SET CONSTRAINTS ALL IMMEDIATE")  # as in 0003
        for name in ADDED:
            op.drop_column("job_uses", name)  # and with it its index and its foreign key
    op.drop_column("datasets", "unanswered")


def _add_columns() -> None:
    for name in ADDED:
        op.add_column("job_uses", sa.Column(name, sa.String(64)))
    op.create_foreign_key(
        "fk_job_uses_tenant_adapter",
        "job_uses",
        "adapters",
        ["tenant", "adapter"],
        ["tenant", "id"],
    )
    op.create_foreign_key("fk_job_uses_made_by", "job_uses", "jobs", ["made_by"], ["id"])


def _forget_new() -> None:
    jobs = sa.table(
        "jobs",
        sa.column("id", sa.String()),
        sa.column("kind", sa.String()),
        sa.column("recipe", sa.JSON()),
    )
    is_gated = (jobs.c.kind == "patch") & jobs.c.recipe.is_not(sa.null())
    is_new = jobs.c.kind.in_(NEW_KINDS) | is_gated
    for table in ("job_uses", "idempotency_keys"):
        rows = sa.table(table, sa.column("job", sa.String()))
        op.execute(rows.delete().where(rows.c.job.in_(sa.select(jobs.c.id).where(is_new))))
    op.execute(jobs.delete().where(is_new))
    datasets = sa.table("datasets", sa.column("unanswered", sa.Integer()))
    op.execute(datasets.delete().where(datasets.c.unanswered > 0))


# ------------------------------------------------------------------------------------------- SQLite
def _make_anew(*, with_evaluations: bool) -> None:
    _new_uses(with_evaluations)
    names = ", ".join(f'"{name}"' for name in USES)
    op.execute(f"INSERT INTO new_job_uses ({names}) SELECT {names} FROM job_uses")  # noqa: S608 - our own names
    op.drop_table("job_uses")
    op.rename_table("new_job_uses", "job_uses")
    for columns in (["job"], ["tenant", "dataset"], ["tenant", "part_kind", "part"]):
        op.create_index(f"ix_job_uses_{'_'.join(columns)}", "job_uses", columns)


def _new_uses(with_evaluations: bool) -> None:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "new_job_uses",
        sa.Column("seq", kind, autoincrement=True, nullable=False),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("dataset", sa.String(64)),
        sa.Column("part_kind", sa.String(32)),
        sa.Column("part", sa.String(64)),
        *(sa.Column(name, sa.String(64)) for name in ADDED if with_evaluations),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_job_uses")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_uses_job")),
        _refers(["tenant", "dataset"], "datasets", ["tenant", "id"]),
        _refers(["tenant", "part_kind", "part"], "parts", ["tenant", "kind", "id"]),
        *(_new_keys() if with_evaluations else ()),
        sqlite_autoincrement=True,
    )


def _new_keys() -> "list[sa.ForeignKeyConstraint]":
    return [
        _refers(["tenant", "adapter"], "adapters", ["tenant", "id"]),
        _refers(["made_by"], "jobs", ["id"]),
    ]


def _refers(columns: list[str], table: str, to: list[str]) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        columns, [f"{table}.{name}" for name in to], name=op.f(f"fk_job_uses_{'_'.join(columns)}")
    )
