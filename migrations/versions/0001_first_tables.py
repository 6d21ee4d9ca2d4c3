"""first tables

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SEQUENCE change_seq")
    op.create_table(
        "models",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("repo_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("source IN ('hub', 'folder')", name=op.f("ck_models_source")),
        sa.CheckConstraint("state IN ('pending', 'indexed', 'no_shift', 'failed')", name=op.f("ck_models_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("repo_id", name=op.f("uq_models_repo_id")),
    )
    op.create_index(op.f("ix_models_owner_id"), "models", ["owner", "id"], unique=False)
    op.create_index(op.f("ix_models_state_id"), "models", ["state", "id"], unique=False)
    op.create_table(
        "spaces",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("feature", sa.Text(), nullable=False),
        sa.Column("layer", sa.BigInteger(), nullable=False),
        sa.Column("base_repo", sa.Text(), nullable=True),
        sa.Column("base_sha", sa.Text(), nullable=True),
        sa.Column("probe_set", sa.String(length=64), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("encoder_version", sa.Text(), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spaces")),
        sa.UniqueConstraint("key", name=op.f("uq_spaces_key")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "base_activations",
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("base_repo", sa.Text(), nullable=False),
        sa.Column("base_sha", sa.Text(), nullable=False),
        sa.Column("noise_floor", sa.Double(), nullable=False),
        sa.Column("probes", sa.BigInteger(), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(data) = 4 * probes * dimension", name=op.f("ck_base_activations_length")),
        sa.ForeignKeyConstraint(
            ["space_id"], ["spaces.id"], name=op.f("fk_base_activations_space_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("space_id", "base_repo", "base_sha", name=op.f("pk_base_activations")),
    )
    op.create_table(
        "index_snapshots",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("covered_seq", sa.BigInteger(), nullable=False),
        sa.Column("vectors", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("recall", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["space_id"], ["spaces.id"], name=op.f("fk_index_snapshots_space_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_snapshots")),
        sa.UniqueConstraint("space_id", "generation", name=op.f("uq_index_snapshots_space_id_generation")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("requested_revision", sa.Text(), nullable=True),
        sa.Column("sha", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("progress", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("base_hint", sa.Text(), nullable=True),
        sa.Column("worker_id", sa.BigInteger(), nullable=True),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("rung_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('queued', 'fetching', 'encoding', 'done', 'failed', 'cancelled')", name=op.f("ck_jobs_state")
        ),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("ck_jobs_progress")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_jobs_model_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_jobs_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_due", "jobs", ["available_at"], unique=False, postgresql_where=sa.text("state = 'queued'"))
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        ["base_hint", "available_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_jobs_running",
        "jobs",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('fetching', 'encoding')"),
    )
    op.create_index(op.f("ix_jobs_state_id"), "jobs", ["state", "id"], unique=False)
    op.create_index(
        "uq_jobs_active",
        "jobs",
        ["model_id", sa.literal_column("coalesce(requested_revision, '')")],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'fetching', 'encoding')"),
    )
    op.create_table(
        "revisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("sha", sa.Text(), nullable=False),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("base_repo", sa.Text(), nullable=False),
        sa.Column("base_sha", sa.Text(), nullable=False),
        sa.Column("base_evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_revisions_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
        sa.UniqueConstraint("model_id", "sha", name=op.f("uq_revisions_model_id_sha")),
    )
    op.create_index(
        op.f("ix_revisions_base_repo_model_id"),
        "revisions",
        ["base_repo", "model_id"],
        unique=False,
        postgresql_where=sa.text("current"),
    )
    op.create_index("uq_revisions_current", "revisions", ["model_id"], unique=True, postgresql_where=sa.text("current"))
    op.create_table(
        "vectors",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("revision_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("no_shift", sa.Boolean(), nullable=False),
        sa.Column("explanation", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("deleted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(data) = 4 * dimension", name=op.f("ck_vectors_length")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_vectors_model_id")),
        sa.ForeignKeyConstraint(["revision_id"], ["revisions.id"], name=op.f("fk_vectors_revision_id")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_vectors_space_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vectors")),
        sa.UniqueConstraint("seq", name=op.f("uq_vectors_seq")),
        sa.UniqueConstraint("space_id", "revision_id", name=op.f("uq_vectors_space_id_revision_id")),
    )
    op.create_index(op.f("ix_vectors_model_id_space_id_seq"), "vectors", ["model_id", "space_id", "seq"], unique=False)
    op.create_index(op.f("ix_vectors_revision_id"), "vectors", ["revision_id"], unique=False)
    # floats do not compress: stored out of line and as they are
    op.execute("ALTER TABLE vectors ALTER COLUMN data SET STORAGE EXTERNAL")
    op.execute("ALTER TABLE base_activations ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_index(op.f("ix_vectors_revision_id"), table_name="vectors")
    op.drop_index(op.f("ix_vectors_model_id_space_id_seq"), table_name="vectors")
    op.drop_table("vectors")
    op.drop_index("uq_revisions_current", table_name="revisions", postgresql_where=sa.text("current"))
    op.drop_index(op.f("ix_revisions_base_repo_model_id"), table_name="revisions", postgresql_where=sa.text("current"))
    op.drop_table("revisions")
    op.drop_index(
        "uq_jobs_active", table_name="jobs", postgresql_where=sa.text("state IN ('queued', 'fetching', 'encoding')")
    )
    op.drop_index(op.f("ix_jobs_state_id"), table_name="jobs")
    op.drop_index("ix_jobs_running", table_name="jobs", postgresql_where=sa.text("state IN ('fetching', 'encoding')"))
    op.drop_index("ix_jobs_queued", table_name="jobs", postgresql_where=sa.text("state = 'queued'"))
    op.drop_index("ix_jobs_due", table_name="jobs", postgresql_where=sa.text("state = 'queued'"))
    op.drop_table("jobs")
    op.drop_table("index_snapshots")
    op.drop_table("base_activations")
    op.drop_table("workers")
    op.drop_table("spaces")
    op.drop_index(op.f("ix_models_state_id"), table_name="models")
    op.drop_index(op.f("ix_models_owner_id"), table_name="models")
    op.drop_table("models")
    op.execute("DROP SEQUENCE change_seq")
