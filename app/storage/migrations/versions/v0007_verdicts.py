"""Verdicts on pushes to a hub's repositories."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PUSH = ("tenant", "hub_repo", "ref", "sha")


def upgrade() -> None:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "verdicts",
        sa.Column("seq", kind, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("webhook", sa.String(128), nullable=False),
        sa.Column("hub_repo", sa.String(128), nullable=False),
        sa.Column("repo", sa.String(256), nullable=False),
        sa.Column("ref", sa.String(256), nullable=False),
        sa.Column("sha", sa.String(40), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("tried_since", sa.DateTime(timezone=True)),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(16)),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("adapter", sa.String(64)),
        sa.Column("job", sa.String(64)),
        sa.Column("thread", sa.Integer()),
        sa.Column("patched", sa.String(64)),
        sa.Column("plan", sa.JSON()),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("actions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_verdicts")),
        sa.UniqueConstraint("id", name=op.f("uq_verdicts_id")),
        sa.UniqueConstraint(*PUSH, name=op.f("uq_verdicts_tenant_hub_repo_ref_sha")),
        sqlite_autoincrement=True,
    )
    for columns in (["state", "due_at"], ["tenant", "seq"], ["hub_repo", "seq"]):
        op.create_index(f"ix_verdicts_{'_'.join(columns)}", "verdicts", columns)


def downgrade() -> None:
    """Forgets all verdicts: the old code has no hook."""
    op.drop_table("verdicts")
