"""Which request a job came with, and which trace it belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = ("request_id", "traceparent")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("jobs", sa.Column(name, sa.String(64)))


def downgrade() -> None:
    """Forgets them: the old code tells of no request."""
    for name in COLUMNS:
        op.drop_column("jobs", name)
