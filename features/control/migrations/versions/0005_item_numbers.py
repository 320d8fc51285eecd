"""Numbers of items: a compact name that never changes, for sets of items in page tokens and impressions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Number the items from 0 in the order of their last change; new items continue the numbers."""
    op.add_column("items", sa.Column("number", sa.BigInteger))
    op.execute(
        "UPDATE items SET number = numbered.number FROM "
        "(SELECT id, ROW_NUMBER() OVER (ORDER BY revision) - 1 AS number FROM items) AS numbered "
        "WHERE items.id = numbered.id"
    )
    with op.batch_alter_table("items") as items:
        items.alter_column("number", existing_type=sa.BigInteger, nullable=False)
        items.create_unique_constraint("items_number_key", ["number"])


def downgrade() -> None:
    """Drop the numbers."""
    with op.batch_alter_table("items") as items:
        items.drop_constraint("items_number_key", type_="unique")
        items.drop_column("number")
