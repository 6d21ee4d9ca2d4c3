"""priorities, quotas, histories and events of jobs

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

QUEUED = sa.text("state = 'queued'")
ACTIVE = sa.text("state IN ('queued', 'fetching', 'encoding')")

NOTE_INSERTED = """
CREATE FUNCTION note_inserted_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_events (job_id, state, progress, attempts, error_code, error_message)
    SELECT id, state, progress, attempts, error_code, error_message FROM changed ORDER BY id;
    RETURN NULL;
END $$
"""

NOTE_UPDATED = """
CREATE FUNCTION note_updated_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_events (job_id, state, progress, attempts, error_code, error_message)
    SELECT id, changed.state, changed.progress, changed.attempts, changed.error_code, changed.error_message
    FROM changed JOIN before USING (id)
    WHERE (changed.state, changed.progress, changed.attempts) IS DISTINCT FROM
        (before.state, before.progress, before.attempts)
    ORDER BY id;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("claim_turn", start=1)))
    op.add_column(
        "workers", sa.Column("status", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False)
    )
    op.add_column("jobs", sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("submitter", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("deaths", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column(
        "jobs", sa.Column("history", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False)
    )
    op.create_check_constraint(op.f("ck_jobs_priority"), "jobs", "priority IN (0, 1, 2)")
    op.drop_index("ix_jobs_queued", table_name="jobs")
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        [sa.text("coalesce(base_hint, '')"), "priority", "available_at"],
        unique=False,
        postgresql_where=QUEUED,
    )
    op.create_index("ix_jobs_turn", "jobs", ["priority", "available_at"], unique=False, postgresql_where=QUEUED)
    op.create_index("ix_jobs_submitter", "jobs", ["submitter"], unique=False, postgresql_where=ACTIVE)
    op.create_index(
        "ix_jobs_failed", "jobs", ["error_code", "id"], unique=False, postgresql_where=sa.text("state = 'failed'")
    )
    op.create_index(op.f("ix_jobs_model_id_id"), "jobs", ["model_id", "id"], unique=False)
    op.create_table(
        "job_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("tx", sa.BigInteger(), server_default=sa.text("pg_current_xact_id()::text::bigint"), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
    )
    op.create_index(op.f("ix_job_events_tx_id"), "job_events", ["tx", "id"], unique=False)
    op.create_index(op.f("ix_job_events_job_id_tx_id"), "job_events", ["job_id", "tx", "id"], unique=False)
    op.create_table(
        "paused_queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_paused_queues")),
    )
    op.execute(NOTE_INSERTED)
    op.execute(NOTE_UPDATED)
    op.execute(
        "CREATE TRIGGER note_inserted AFTER INSERT ON jobs REFERENCING NEW TABLE AS changed "
        "FOR EACH STATEMENT EXECUTE FUNCTION note_inserted_jobs()"
    )
    op.execute(
        "CREATE TRIGGER note_updated AFTER UPDATE ON jobs REFERENCING OLD TABLE AS before NEW TABLE AS changed "
        "FOR EACH STATEMENT EXECUTE FUNCTION note_updated_jobs()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER note_updated ON jobs")
    op.execute("DROP TRIGGER note_inserted ON jobs")
    op.execute("DROP FUNCTION note_updated_jobs()")
    op.execute("DROP FUNCTION note_inserted_jobs()")
    op.drop_table("paused_queues")
    op.drop_table("job_events")
    op.drop_index(op.f("ix_jobs_model_id_id"), table_name="jobs")
    op.drop_index("ix_jobs_failed", table_name="jobs")
    op.drop_index("ix_jobs_submitter", table_name="jobs")
    op.drop_index("ix_jobs_turn", table_name="jobs")
    op.drop_index("ix_jobs_queued", table_name="jobs")
    op.create_index("ix_jobs_queued", "jobs", ["base_hint", "available_at"], unique=False, postgresql_where=QUEUED)
    op.drop_constraint(op.f("ck_jobs_priority"), "jobs", type_="check")
    for column in ("history", "deaths", "submitter", "priority"):
        op.drop_column("jobs", column)
    op.drop_column("workers", "status")
    op.execute(sa.schema.DropSequence(sa.Sequence("claim_turn")))
