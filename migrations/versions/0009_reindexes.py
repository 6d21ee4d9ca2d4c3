"""reindexes, and which spaces serve

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ACTIVE = sa.text("state IN ('queued', 'fetching', 'encoding')")
ZERO = sa.text("0")


def upgrade() -> None:
    op.create_table(
        "reindexes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("selection", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("stage", sa.Text(), server_default="queueing", nullable=True),
        sa.Column("contract", postgresql.JSONB(), nullable=True),
        sa.Column("cursor", sa.BigInteger(), server_default=ZERO, nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        *(
            sa.Column(name, sa.BigInteger(), server_default=ZERO, nullable=False)
            for name in ("queued", "quarantined", "carried")
        ),
        sa.Column("positions", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("settled_seq", sa.BigInteger(), nullable=True),
        sa.Column("report", postgresql.JSONB(), nullable=True),
        sa.Column("switched", postgresql.JSONB(), nullable=True),
        sa.Column("switched_seq", sa.BigInteger(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        *(
            sa.Column(name, sa.DateTime(timezone=True), nullable=True)
            for name in ("ready_at", "switched_at", "finished_at")
        ),
        sa.CheckConstraint(
            "state IN ('running', 'ready', 'switched', 'rolled_back', 'cancelled', 'failed')",
            name=op.f("ck_reindexes_state"),
        ),
        sa.CheckConstraint(
            "stage IN ('queueing', 'measuring', 'carrying', 'building', 'discarding')", name=op.f("ck_reindexes_stage")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reindexes")),
    )
    op.create_index(
        "ix_reindexes_open",
        "reindexes",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state IN ('running', 'ready') OR stage = 'discarding'"),
    )
    op.create_table(
        "reindex_moves",
        sa.Column("reindex_id", sa.BigInteger(), nullable=False),
        sa.Column("revision_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("base_repo", sa.Text(), nullable=False),
        sa.Column("base_sha", sa.Text(), nullable=False),
        sa.Column("base_evidence", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reindex_id"], ["reindexes.id"], name=op.f("fk_reindex_moves_reindex_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name=op.f("fk_reindex_moves_revision_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("reindex_id", "revision_id", name=op.f("pk_reindex_moves")),
    )
    op.add_column("spaces", sa.Column("edition", sa.BigInteger(), server_default=ZERO, nullable=False))
    op.add_column("spaces", sa.Column("serving", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    # what answered before answers after
    op.execute(
        "UPDATE spaces SET serving = true WHERE id IN "
        "(SELECT max(id) FROM spaces GROUP BY feature, coalesce(base_repo, ''))"
    )
    op.create_index(
        "uq_spaces_serving",
        "spaces",
        ["feature", sa.text("coalesce(base_repo, '')")],
        unique=True,
        postgresql_where=sa.text("serving"),
    )
    op.create_index(
        op.f("ix_spaces_edition"), "spaces", ["edition"], unique=False, postgresql_where=sa.text("edition <> 0")
    )
    op.add_column("jobs", sa.Column("reindex_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_reindex_id"), "jobs", "reindexes", ["reindex_id"], ["id"], ondelete="SET NULL")
    op.create_index(
        "ix_jobs_reindex",
        "jobs",
        ["reindex_id", "state"],
        unique=False,
        postgresql_where=sa.text("reindex_id IS NOT NULL"),
    )
    op.drop_index("uq_jobs_active", table_name="jobs")
    op.create_index(
        "uq_jobs_active",
        "jobs",
        ["model_id", sa.text("coalesce(requested_revision, '')"), sa.text("coalesce(reindex_id, 0)")],
        unique=True,
        postgresql_where=ACTIVE,
    )


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE reindex_id IS NOT NULL")
    op.drop_index("uq_jobs_active", table_name="jobs")
    op.create_index(
        "uq_jobs_active",
        "jobs",
        ["model_id", sa.text("coalesce(requested_revision, '')")],
        unique=True,
        postgresql_where=ACTIVE,
    )
    op.drop_index("ix_jobs_reindex", table_name="jobs")
    op.drop_constraint(op.f("fk_jobs_reindex_id"), "jobs", type_="foreignkey")
    op.drop_column("jobs", "reindex_id")
    op.drop_index(op.f("ix_spaces_edition"), table_name="spaces")
    op.drop_index("uq_spaces_serving", table_name="spaces")
    op.drop_column("spaces", "serving")
    op.drop_column("spaces", "edition")
    op.drop_table("reindex_moves")
    op.drop_table("reindexes")
