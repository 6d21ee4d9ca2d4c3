"""maps of spaces

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "maps",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("covered_seq", sa.BigInteger(), nullable=False),
        sa.Column("models", sa.BigInteger(), nullable=False),
        sa.Column("model_ids", sa.LargeBinary(), nullable=False),
        sa.Column("places", sa.LargeBinary(), nullable=False),
        sa.Column("distortion", sa.LargeBinary(), nullable=False),
        sa.Column("mean_distortion", sa.Double(), nullable=True),
        sa.Column("parameters", postgresql.JSONB(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(model_ids) = 8 * models", name=op.f("ck_maps_ids_length")),
        sa.CheckConstraint("octet_length(places) = 8 * models", name=op.f("ck_maps_places_length")),
        sa.CheckConstraint("octet_length(distortion) = models", name=op.f("ck_maps_distortion_length")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_maps_space_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maps")),
    )
    op.create_index(op.f("ix_maps_space_id_id"), "maps", ["space_id", "id"], unique=False)


def downgrade() -> None:
    op.drop_table("maps")
