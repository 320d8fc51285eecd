"""Orders to exposure targets: pause, resume, stop, another amount."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One row for each target that was ever told something."""
    op.create_table(
        "target_orders",
        sa.Column("target", sa.String(300), primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False, unique=True),
        sa.Column("body", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Forget the orders."""
    op.drop_table("target_orders")
