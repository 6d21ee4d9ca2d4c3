"""what searches filter by, and how builds of the index went

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("licence", sa.Text(), nullable=True))
    op.add_column(
        "models",
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
    )
    op.add_column("models", sa.Column("downloads", sa.BigInteger(), nullable=True))
    op.add_column("models", sa.Column("likes", sa.BigInteger(), nullable=True))
    op.add_column("models", sa.Column("hub_updated_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("models", sa.Column("cluster", sa.BigInteger(), nullable=True))
    op.add_column("models", sa.Column("seq", sa.BigInteger(), nullable=True))
    # models that are indexed already enter the feed of attributes
    op.execute("UPDATE models SET seq = nextval('change_seq') WHERE state <> 'pending'")
    op.create_unique_constraint(op.f("uq_models_seq"), "models", ["seq"])
    op.create_index(op.f("ix_vectors_space_id_seq"), "vectors", ["space_id", "seq"], unique=False)
    op.add_column("spaces", sa.Column("build_after", sa.DateTime(timezone=True), nullable=True))
    op.add_column("spaces", sa.Column("build_error", sa.Text(), nullable=True))
    op.add_column("index_snapshots", sa.Column("broken", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("index_snapshots", "broken")
    op.drop_column("spaces", "build_error")
    op.drop_column("spaces", "build_after")
    op.drop_index(op.f("ix_vectors_space_id_seq"), table_name="vectors")
    op.drop_constraint(op.f("uq_models_seq"), "models", type_="unique")
    for column in ("seq", "cluster", "hub_updated_at", "likes", "downloads", "tags", "licence"):
        op.drop_column("models", column)
