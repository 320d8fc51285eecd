"""The seal of the audit trail; entries that were written without a key are signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from features.control.audit_trail import sign_unsigned

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of the seal, and sign the existing entries."""
    op.create_table(
        "audit_seal",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(64), nullable=False),
    )
    attributes = context.config.attributes
    sign_unsigned(op.get_bind(), attributes["signer"], attributes["checkpoint"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("audit_seal")
