"""Adds the quarantine, and what each worker is loading.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# what was quarantined before there were entries, at any commit
QUARANTINED_BEFORE = """
    INSERT INTO quarantine_entries
        (kind, repo_id, sha, submitted_base, ends, error_code, error_message, last_end_at, quarantined_at)
    SELECT 'repo', lower(models.repo_id), '', '', max(jobs.worker_deaths), 'worker_lost',
        'The worker died while it ran the job.', max(jobs.finished_at), max(jobs.finished_at)
    FROM jobs JOIN models ON models.id = jobs.model_id
    WHERE jobs.state = 'failed' AND jobs.error_code = 'quarantined' AND jobs.finished_at IS NOT NULL
    GROUP BY lower(models.repo_id)
"""


def upgrade() -> None:
    op.create_table(
        "quarantine_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "repo_id", "sha", "submitted_base")),
        sa.Column("ends", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("error_code", "error_message")),
        *(
            sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
            for name in ("created_at", "last_end_at")
        ),
        sa.Column("quarantined_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("kind IN ('repo', 'base')", name=op.f("ck_quarantine_entries_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine_entries")),
        sa.UniqueConstraint(
            "kind",
            "repo_id",
            "sha",
            "submitted_base",
            name=op.f("uq_quarantine_entries_kind_repo_id_sha_submitted_base"),
        ),
    )
    op.add_column("workers", sa.Column("loading_repo", sa.Text()))
    op.add_column("workers", sa.Column("loading_sha", sa.Text()))
    op.execute(QUARANTINED_BEFORE)


def downgrade() -> None:
    op.drop_column("workers", "loading_sha")
    op.drop_column("workers", "loading_repo")
    op.drop_table("quarantine_entries")
