"""geometries of one base's models

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("geometries", sa.Column("base_repo", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.drop_index("ix_geometries_space_id_kind_id", "geometries")
    op.create_index("ix_geometries_space_id_kind_base_repo_id", "geometries", ["space_id", "kind", "base_repo", "id"])


def downgrade() -> None:
    op.execute("DELETE FROM geometries WHERE base_repo <> ''")
    op.drop_index("ix_geometries_space_id_kind_base_repo_id", "geometries")
    op.create_index("ix_geometries_space_id_kind_id", "geometries", ["space_id", "kind", "id"])
    op.drop_column("geometries", "base_repo")
