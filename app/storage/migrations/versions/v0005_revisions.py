"""The commits that a job's models were resolved to."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("revisions", sa.JSON()))


def downgrade() -> None:
    """Forgets which commits they were: the old code knows no hub."""
    op.drop_column("jobs", "revisions")
