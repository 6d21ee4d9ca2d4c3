"""archives of adapters, and models that are merges or selections

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _sources("'hub', 'folder', 'examples', 'merge', 'selection'")
    op.create_table(
        "archives",
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_archives_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_archives")),
    )
    op.create_table(
        "archive_pieces",
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["archives.model_id"], name=op.f("fk_archive_pieces_model_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model_id", "number", name=op.f("pk_archive_pieces")),
    )
    op.execute("ALTER TABLE archive_pieces ALTER COLUMN data SET STORAGE EXTERNAL")
    op.add_column("tasks", sa.Column("keep_adapter", sa.Boolean(), server_default=sa.text("false"), nullable=False))


def downgrade() -> None:
    op.drop_column("tasks", "keep_adapter")
    op.drop_table("archive_pieces")
    op.drop_table("archives")
    op.execute("DELETE FROM models WHERE source IN ('merge', 'selection')")
    _sources("'hub', 'folder', 'examples'")


def _sources(allowed: str) -> None:
    op.drop_constraint(op.f("ck_models_source"), "models")
    op.create_check_constraint(op.f("ck_models_source"), "models", f"source IN ({allowed})")
