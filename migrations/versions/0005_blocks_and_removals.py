"""Adds blocks, and removals of models by an admin.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "blocks",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('owner', 'repo', 'license')", name=op.f("ck_blocks_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blocks")),
        sa.UniqueConstraint("kind", "value", name=op.f("uq_blocks_kind_value")),
    )
    op.add_column("models", sa.Column("removed_at", sa.DateTime(timezone=True)))
    op.alter_column("vectors", "revision_id", nullable=True)
    op.add_column("crawls", sa.Column("include_removed", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("crawls", sa.Column("blocked", sa.BigInteger(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    op.drop_column("crawls", "blocked")
    op.drop_column("crawls", "include_removed")
    op.execute("DELETE FROM index_snapshots")  # their models would come back with the tombstones gone
    op.execute("DELETE FROM vectors WHERE revision_id IS NULL")
    op.alter_column("vectors", "revision_id", nullable=False)
    op.drop_column("models", "removed_at")
    op.drop_table("blocks")
