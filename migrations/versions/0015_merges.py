"""merges of adapters, and what of a revision bears on merging

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("revisions", sa.Column("facts", postgresql.JSONB(), nullable=True))
    op.create_table(
        "merges",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("viewer", sa.Text(), nullable=True),
        sa.Column("base_repo", sa.Text(), nullable=False),
        sa.Column("base_sha", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(), nullable=False),
        sa.Column("parts", postgresql.JSONB(), nullable=False),
        sa.Column("plan", postgresql.JSONB(), nullable=False),
        sa.Column("figures", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_merges_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merges")),
        sa.UniqueConstraint("model_id", name=op.f("uq_merges_model_id")),
    )
    op.create_index("uq_merges_name", "merges", [sa.text("coalesce(viewer, '')"), "name"], unique=True)
    op.create_table(
        "merge_vectors",
        sa.Column("merge_id", sa.BigInteger(), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("predicted", sa.Boolean(), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(data) = 4 * dimension", name=op.f("ck_merge_vectors_length")),
        sa.ForeignKeyConstraint(
            ["merge_id"], ["merges.id"], name=op.f("fk_merge_vectors_merge_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["space_id"], ["spaces.id"], name=op.f("fk_merge_vectors_space_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("merge_id", "space_id", "predicted", name=op.f("pk_merge_vectors")),
    )
    op.execute("ALTER TABLE merge_vectors ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("DELETE FROM models WHERE source = 'merge'")
    op.drop_table("merge_vectors")
    op.drop_table("merges")
    op.drop_column("revisions", "facts")
