"""Stores the base model that a submission names, and how near unrelated models of a space are.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ACTIVE = "uq_jobs_active"
WITHOUT_BASE = ("model_id", "coalesce(requested_revision, '')", "coalesce(reindex_id, 0)")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("requested_base", sa.Text()))
    _replace_active_index(*WITHOUT_BASE, "coalesce(requested_base, '')")
    op.add_column("spaces", sa.Column("unrelated_similarity", sa.Double()))


def downgrade() -> None:
    op.drop_column("spaces", "unrelated_similarity")
    # without their base these jobs would measure something else, and collide with others of the same model
    op.execute(
        "UPDATE jobs SET state = 'cancelled', worker_id = NULL, token = NULL, finished_at = now() "
        "WHERE requested_base IS NOT NULL AND state IN ('queued', 'fetching', 'encoding')"
    )
    _replace_active_index(*WITHOUT_BASE)
    op.drop_column("jobs", "requested_base")


def _replace_active_index(*columns: str) -> None:
    op.drop_index(ACTIVE, "jobs")
    op.create_index(
        ACTIVE,
        "jobs",
        [sa.text(column) for column in columns],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'fetching', 'encoding') AND viewer IS NULL"),
    )
