"""Columns that hold every name of a target: an outlet of 100 characters, a slash and an id of 200."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the columns."""
    _resize(target=400, subject=400)


def downgrade() -> None:
    """Restore the lengths. PostgreSQL refuses if a longer name is stored."""
    _resize(target=300, subject=200)


def _resize(target: int, subject: int) -> None:
    with op.batch_alter_table("target_orders") as table:
        table.alter_column("target", type_=sa.String(target), existing_nullable=False)
    with op.batch_alter_table("audit") as table:
        table.alter_column("subject", type_=sa.String(subject), existing_nullable=False)
