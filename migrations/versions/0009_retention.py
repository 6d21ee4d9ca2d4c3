"""Adds the age of archives, lets the rows of dead workers be deleted, and indexes what is counted and deleted by.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OWNED = ("tasks", "merges", "selections")
WORKERS = ("fk_jobs_worker_id", "jobs", "workers", ["worker_id"], ["id"])


def upgrade() -> None:
    created_at = sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    op.add_column("archives", created_at)  # the age of those that exist is counted from now on
    op.drop_constraint("fk_jobs_worker_id", "jobs", type_="foreignkey")
    op.create_foreign_key(*WORKERS, ondelete="SET NULL")
    op.create_index(op.f("ix_jobs_worker_id"), "jobs", ["worker_id"])
    op.create_index(op.f("ix_clusters_medoid_id"), "clusters", ["medoid_id"])
    for table in OWNED:
        op.create_index(op.f(f"ix_{table}_viewer"), table, ["viewer"])


def downgrade() -> None:
    for table in OWNED:
        op.drop_index(f"ix_{table}_viewer", table)
    op.drop_index("ix_clusters_medoid_id", "clusters")
    op.drop_index("ix_jobs_worker_id", "jobs")
    op.drop_constraint("fk_jobs_worker_id", "jobs", type_="foreignkey")
    op.create_foreign_key(*WORKERS)
    op.drop_column("archives", "created_at")
