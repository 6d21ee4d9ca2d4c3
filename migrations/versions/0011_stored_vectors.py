"""vectors that people gave a name

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stored_vectors",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("viewer", sa.Text(), nullable=True),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("norm", sa.Float(), nullable=False),
        sa.Column("noise_floor", sa.Float(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("expression", sa.Text(), nullable=True),
        sa.Column("unit_terms", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(data) = 4 * dimension", name=op.f("ck_stored_vectors_length")),
        sa.CheckConstraint("origin IN ('given', 'expression')", name=op.f("ck_stored_vectors_origin")),
        sa.CheckConstraint(
            "(origin = 'expression') = (expression IS NOT NULL)", name=op.f("ck_stored_vectors_expression")
        ),
        sa.ForeignKeyConstraint(
            ["space_id"], ["spaces.id"], name=op.f("fk_stored_vectors_space_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_vectors")),
    )
    op.create_index("uq_stored_vectors_name", "stored_vectors", [sa.text("coalesce(viewer, '')"), "name"], unique=True)
    op.create_index(op.f("ix_stored_vectors_space_id"), "stored_vectors", ["space_id"], unique=False)
    op.execute("ALTER TABLE stored_vectors ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("stored_vectors")
