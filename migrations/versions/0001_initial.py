"""Creates all tables, sequences, functions and triggers.

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

SEQUENCES = ("change_seq", "claim_turn", "cluster_number")

MODEL_WORDS = r"""
CREATE OR REPLACE FUNCTION model_words(repo_id text, tags text[], card text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    WITH texts AS (
        SELECT regexp_replace(repo_id, '[ -/:-@[-`{-~\s]+', ' ', 'g') AS name,
            regexp_replace(array_to_string(tags, ' '), '[ -/:-@[-`{-~\s]+', ' ', 'g') AS labels,
            regexp_replace(coalesce(card, ''), '[ -/:-@[-`{-~\s]+', ' ', 'g') AS card
    )
    SELECT setweight(to_tsvector('simple', name || ' ' || regexp_replace(name, '([0-9]+)', ' \1 ', 'g')), 'A')
        || setweight(to_tsvector('simple', labels || ' ' || regexp_replace(labels, '([0-9]+)', ' \1 ', 'g')), 'B')
        || setweight(to_tsvector('simple', texts.card), 'C')
    FROM texts
$$
"""

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

TRIGGERS = (
    "CREATE TRIGGER note_inserted AFTER INSERT ON jobs REFERENCING NEW TABLE AS changed "
    "FOR EACH STATEMENT EXECUTE FUNCTION note_inserted_jobs()",
    "CREATE TRIGGER note_updated AFTER UPDATE ON jobs REFERENCING OLD TABLE AS before NEW TABLE AS changed "
    "FOR EACH STATEMENT EXECUTE FUNCTION note_updated_jobs()",
)

# float32 vectors and zip files do not compress, so they are stored out of line and uncompressed
UNCOMPRESSED = ("archive_pieces", "base_activations", "merge_vectors", "stored_vectors", "task_vectors", "vectors")

TABLES = (  # each before the tables that it references
    "cluster_members",
    "vectors",
    "task_vectors",
    "selections",
    "reindex_moves",
    "merge_vectors",
    "job_events",
    "clusters",
    "archive_pieces",
    "task_runs",
    "stored_vectors",
    "revisions",
    "model_access",
    "merges",
    "maps",
    "map_attempts",
    "jobs",
    "index_snapshots",
    "geometries",
    "former_names",
    "cluster_runs",
    "base_activations",
    "archives",
    "workers",
    "tasks",
    "spaces",
    "reindexes",
    "paused_queues",
    "models",
    "crawls",
)


def upgrade() -> None:
    for sequence in SEQUENCES:
        op.execute(sa.schema.CreateSequence(sa.Sequence(sequence, start=1)))
    op.execute(MODEL_WORDS)
    op.create_table(
        "crawls",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("source", postgresql.JSONB(), nullable=False),
        sa.Column("ids", postgresql.JSONB()),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("max_models", sa.BigInteger()),
        sa.Column("min_downloads", sa.BigInteger()),
        sa.Column("every", sa.BigInteger()),
        sa.Column("run", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("listing", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cursor", sa.Text()),
        sa.Column("since", sa.DateTime(timezone=True)),
        sa.Column("pages", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("listed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("queued", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("skipped", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("size", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sized", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("wait_until", sa.DateTime(timezone=True)),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("stepped_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("covered_at", sa.DateTime(timezone=True)),
        sa.Column("next_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')", name=op.f("ck_crawls_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crawls")),
    )
    op.create_index(
        "ix_crawls_active", "crawls", ["stepped_at"], postgresql_where=sa.text("state IN ('queued', 'running')")
    )
    op.create_table(
        "models",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("repo_id", sa.Text(), nullable=False),
        sa.Column("private", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text()),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("license", sa.Text()),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("downloads", sa.BigInteger()),
        sa.Column("likes", sa.BigInteger()),
        sa.Column("datasets", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("languages", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("hub_created_at", sa.DateTime(timezone=True)),
        sa.Column("hub_updated_at", sa.DateTime(timezone=True)),
        sa.Column("hub_id", sa.Text()),
        sa.Column("hub_sha", sa.Text()),
        sa.Column("cluster", sa.BigInteger()),
        sa.Column("card", sa.Text()),
        sa.Column(
            "words",
            postgresql.TSVECTOR(),
            sa.Computed("model_words(repo_id, tags, card)", persisted=True),
            nullable=False,
        ),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "source IN ('hub', 'folder', 'examples', 'merge', 'selection')", name=op.f("ck_models_source")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'indexed', 'no_shift', 'failed', 'removed')", name=op.f("ck_models_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("repo_id", "private", name=op.f("uq_models_repo_id_private")),
        sa.UniqueConstraint("seq", name=op.f("uq_models_seq")),
    )
    op.create_index(op.f("ix_models_hub_id"), "models", ["hub_id"])
    op.create_index(op.f("ix_models_owner_id"), "models", ["owner", "id"])
    op.create_index("ix_models_private", "models", ["id"], postgresql_where=sa.text("private"))
    op.create_index(op.f("ix_models_state_id"), "models", ["state", "id"])
    op.create_index(op.f("ix_models_words"), "models", ["words"], postgresql_using="gin")
    op.create_table(
        "paused_queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_paused_queues")),
    )
    op.create_table(
        "reindexes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("selection", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("stage", sa.Text(), server_default="queueing"),
        sa.Column("contract", postgresql.JSONB()),
        sa.Column("cursor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("total", sa.BigInteger()),
        sa.Column("queued", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("quarantined", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("backfilled", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("positions", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("required_seq", sa.BigInteger()),
        sa.Column("report", postgresql.JSONB()),
        sa.Column("cutover_spaces", postgresql.JSONB()),
        sa.Column("cutover_seq", sa.BigInteger()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True)),
        sa.Column("cut_over_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "stage IN ('queueing', 'measuring', 'backfilling', 'building', 'discarding')",
            name=op.f("ck_reindexes_stage"),
        ),
        sa.CheckConstraint(
            "state IN ('running', 'ready', 'cut_over', 'rolled_back', 'cancelled', 'failed')",
            name=op.f("ck_reindexes_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reindexes")),
    )
    op.create_index(
        "ix_reindexes_open",
        "reindexes",
        ["id"],
        postgresql_where=sa.text("state IN ('running', 'ready') OR stage = 'discarding'"),
    )
    op.create_table(
        "spaces",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("feature", sa.Text(), nullable=False),
        sa.Column("layer", sa.BigInteger(), nullable=False),
        sa.Column("base_repo", sa.Text()),
        sa.Column("base_sha", sa.Text()),
        sa.Column("probe_set", sa.String(length=64), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("encoder_version", sa.Text(), nullable=False),
        sa.Column("edition", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("serving", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("build_after", sa.DateTime(timezone=True)),
        sa.Column("build_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spaces")),
        sa.UniqueConstraint("key", name=op.f("uq_spaces_key")),
    )
    op.create_index(op.f("ix_spaces_edition"), "spaces", ["edition"], postgresql_where=sa.text("edition <> 0"))
    op.create_index(
        "uq_spaces_serving",
        "spaces",
        ["feature", sa.text("coalesce(base_repo, '')")],
        unique=True,
        postgresql_where=sa.text("serving"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("viewer", sa.Text()),
        sa.Column("examples", postgresql.JSONB()),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("keep_examples", sa.Boolean(), nullable=False),
        sa.Column("keep_adapter", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("verify", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("training_config", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
    )
    op.create_index(
        "ix_tasks_examples", "tasks", ["id"], postgresql_where=sa.text("examples IS NOT NULL AND NOT keep_examples")
    )
    op.create_index("uq_tasks_name", "tasks", [sa.text("coalesce(viewer, '')"), "name"], unique=True)
    op.create_table(
        "workers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("process", sa.Text()),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True)),
        sa.Column("status", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "archives",
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_archives_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_archives")),
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
        "cluster_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("stage", sa.Text()),
        sa.Column("current", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(), nullable=False),
        sa.Column("covered_seq", sa.BigInteger()),
        sa.Column("models", sa.BigInteger()),
        sa.Column("clusters", sa.BigInteger()),
        sa.Column("sizes", postgresql.ARRAY(sa.BigInteger())),
        sa.Column("noise_share", sa.Double()),
        sa.Column("silhouette", sa.Double()),
        sa.Column("stability", sa.Double()),
        sa.Column("compared_with", sa.BigInteger()),
        sa.Column("metrics", postgresql.JSONB()),
        sa.Column("seconds", sa.Double()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_cluster_runs_state")),
        sa.ForeignKeyConstraint(
            ["compared_with"], ["cluster_runs.id"], name=op.f("fk_cluster_runs_compared_with"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_cluster_runs_space_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cluster_runs")),
    )
    op.create_index(op.f("ix_cluster_runs_space_id_id"), "cluster_runs", ["space_id", "id"])
    op.create_index(
        "uq_cluster_runs_active",
        "cluster_runs",
        ["space_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "uq_cluster_runs_current", "cluster_runs", ["space_id"], unique=True, postgresql_where=sa.text("current")
    )
    op.create_table(
        "former_names",
        sa.Column("repo_id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_former_names_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("repo_id", name=op.f("pk_former_names")),
    )
    op.create_index(op.f("ix_former_names_model_id"), "former_names", ["model_id"])
    op.create_table(
        "geometries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("base_repo", sa.Text(), server_default="", nullable=False),
        sa.Column("models", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_geometries_space_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_geometries")),
    )
    op.create_index(
        op.f("ix_geometries_space_id_kind_base_repo_id"), "geometries", ["space_id", "kind", "base_repo", "id"]
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
        sa.Column("broken", sa.Text()),
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
        sa.Column("requested_revision", sa.Text()),
        sa.Column("sha", sa.Text()),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("progress", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("viewer", sa.Text()),
        sa.Column("token", sa.LargeBinary()),
        sa.Column("token_at", sa.DateTime(timezone=True)),
        sa.Column("submitter", sa.Text()),
        sa.Column("exclusive", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("reindex_id", sa.BigInteger()),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker_deaths", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("history", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("base_hint", sa.Text()),
        sa.Column("worker_id", sa.BigInteger()),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('queued', 'fetching', 'encoding', 'done', 'failed', 'cancelled')", name=op.f("ck_jobs_state")
        ),
        sa.CheckConstraint(
            "token IS NULL OR (viewer IS NOT NULL AND token_at IS NOT NULL AND state IN ('queued', 'fetching', 'encoding'))",
            name=op.f("ck_jobs_token"),
        ),
        sa.CheckConstraint("priority IN (0, 1, 2)", name=op.f("ck_jobs_priority")),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("ck_jobs_progress")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_jobs_model_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["reindex_id"], ["reindexes.id"], name=op.f("fk_jobs_reindex_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_jobs_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_due", "jobs", ["available_at"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("ix_jobs_failed", "jobs", ["error_code", "id"], postgresql_where=sa.text("state = 'failed'"))
    op.create_index(op.f("ix_jobs_model_id_id"), "jobs", ["model_id", "id"])
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        [sa.text("coalesce(base_hint, '')"), "priority", "available_at"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_jobs_reindex", "jobs", ["reindex_id", "state"], postgresql_where=sa.text("reindex_id IS NOT NULL")
    )
    op.create_index(
        "ix_jobs_running", "jobs", ["worker_id"], postgresql_where=sa.text("state IN ('fetching', 'encoding')")
    )
    op.create_index(op.f("ix_jobs_state_id"), "jobs", ["state", "id"])
    op.create_index(
        "ix_jobs_submitter",
        "jobs",
        ["submitter"],
        postgresql_where=sa.text("state IN ('queued', 'fetching', 'encoding')"),
    )
    op.create_index("ix_jobs_token_at", "jobs", ["token_at"], postgresql_where=sa.text("token IS NOT NULL"))
    op.create_index("ix_jobs_turn", "jobs", ["priority", "available_at"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("ix_jobs_viewer", "jobs", ["viewer", "id"], postgresql_where=sa.text("viewer IS NOT NULL"))
    op.create_index(
        "uq_jobs_active",
        "jobs",
        ["model_id", sa.text("coalesce(requested_revision, '')"), sa.text("coalesce(reindex_id, 0)")],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'fetching', 'encoding') AND viewer IS NULL"),
    )
    op.create_table(
        "map_attempts",
        sa.Column("space_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_map_attempts_space_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("space_id", name=op.f("pk_map_attempts")),
    )
    op.create_table(
        "maps",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("covered_seq", sa.BigInteger(), nullable=False),
        sa.Column("models", sa.BigInteger(), nullable=False),
        sa.Column("model_ids", sa.LargeBinary(), nullable=False),
        sa.Column("coordinates", sa.LargeBinary(), nullable=False),
        sa.Column("distortion", sa.LargeBinary(), nullable=False),
        sa.Column("mean_distortion", sa.Double()),
        sa.Column("parameters", postgresql.JSONB(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(distortion) = models", name=op.f("ck_maps_distortion_length")),
        sa.CheckConstraint("octet_length(model_ids) = 8 * models", name=op.f("ck_maps_ids_length")),
        sa.CheckConstraint("octet_length(coordinates) = 8 * models", name=op.f("ck_maps_coordinates_length")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_maps_space_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maps")),
    )
    op.create_index(op.f("ix_maps_space_id_id"), "maps", ["space_id", "id"])
    op.create_table(
        "merges",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("viewer", sa.Text()),
        sa.Column("base_repo", sa.Text(), nullable=False),
        sa.Column("base_sha", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(), nullable=False),
        sa.Column("parts", postgresql.JSONB(), nullable=False),
        sa.Column("plan", postgresql.JSONB(), nullable=False),
        sa.Column("metrics", postgresql.JSONB()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_merges_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merges")),
        sa.UniqueConstraint("model_id", name=op.f("uq_merges_model_id")),
    )
    op.create_index("uq_merges_name", "merges", [sa.text("coalesce(viewer, '')"), "name"], unique=True)
    op.create_table(
        "model_access",
        sa.Column("model_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("by_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_model_access_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model_id", "submitter", name=op.f("pk_model_access")),
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
        sa.Column("base_evidence", postgresql.JSONB(), nullable=False),
        sa.Column("facts", postgresql.JSONB()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_revisions_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
        sa.UniqueConstraint("model_id", "sha", name=op.f("uq_revisions_model_id_sha")),
    )
    op.create_index(
        op.f("ix_revisions_base_repo_model_id"),
        "revisions",
        ["base_repo", "model_id"],
        postgresql_where=sa.text("current"),
    )
    op.create_index("uq_revisions_current", "revisions", ["model_id"], unique=True, postgresql_where=sa.text("current"))
    op.create_table(
        "stored_vectors",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("viewer", sa.Text()),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("noise_floor", sa.Double()),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("expression", sa.Text()),
        sa.Column("unit_terms", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(origin = 'expression') = (expression IS NOT NULL)", name=op.f("ck_stored_vectors_expression")
        ),
        sa.CheckConstraint("origin IN ('vector', 'expression')", name=op.f("ck_stored_vectors_origin")),
        sa.CheckConstraint("octet_length(data) = 4 * dimension", name=op.f("ck_stored_vectors_length")),
        sa.ForeignKeyConstraint(
            ["space_id"], ["spaces.id"], name=op.f("fk_stored_vectors_space_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_vectors")),
    )
    op.create_index(op.f("ix_stored_vectors_space_id"), "stored_vectors", ["space_id"])
    op.create_index("uq_stored_vectors_name", "stored_vectors", [sa.text("coalesce(viewer, '')"), "name"], unique=True)
    op.create_table(
        "task_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("base_repo", sa.Text(), nullable=False),
        sa.Column("base_sha", sa.Text(), nullable=False),
        sa.Column("metrics", postgresql.JSONB()),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_task_runs_model_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_task_runs_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_runs")),
        sa.UniqueConstraint("model_id", name=op.f("uq_task_runs_model_id")),
        sa.UniqueConstraint("task_id", "base_repo", "base_sha", name=op.f("uq_task_runs_task_id_base_repo_base_sha")),
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
    op.create_table(
        "clusters",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("cluster_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("medoid_id", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("cohesion", sa.Double(), nullable=False),
        sa.Column("radius", sa.Double(), nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("centroid", sa.LargeBinary(), nullable=False),
        sa.Column("explanation", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("octet_length(centroid) = 4 * dimension", name=op.f("ck_clusters_length")),
        sa.ForeignKeyConstraint(["medoid_id"], ["models.id"], name=op.f("fk_clusters_medoid_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["cluster_runs.id"], name=op.f("fk_clusters_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "cluster_id", name=op.f("pk_clusters")),
    )
    op.create_index(op.f("ix_clusters_cluster_id_run_id"), "clusters", ["cluster_id", "run_id"])
    op.create_table(
        "job_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("tx", sa.BigInteger(), server_default=sa.text("pg_current_xact_id()::text::bigint"), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
    )
    op.create_index(op.f("ix_job_events_job_id_tx_id"), "job_events", ["job_id", "tx", "id"])
    op.create_index(op.f("ix_job_events_tx_id"), "job_events", ["tx", "id"])
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
    op.create_table(
        "selections",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("viewer", sa.Text()),
        sa.Column("base_repo", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("strategies", postgresql.JSONB(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("budget", sa.BigInteger(), nullable=False),
        sa.Column("metrics", postgresql.JSONB()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_selections_model_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["task_runs.id"], name=op.f("fk_selections_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_selections_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_selections")),
        sa.UniqueConstraint("model_id", name=op.f("uq_selections_model_id")),
    )
    op.create_index(op.f("ix_selections_task_id"), "selections", ["task_id"])
    op.create_table(
        "task_vectors",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("sample", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(data) = 4 * dimension", name=op.f("ck_task_vectors_length")),
        sa.ForeignKeyConstraint(["run_id"], ["task_runs.id"], name=op.f("fk_task_vectors_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_task_vectors_space_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "space_id", "sample", name=op.f("pk_task_vectors")),
    )
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
        sa.Column("explanation", postgresql.JSONB()),
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
    op.create_index(op.f("ix_vectors_model_id_space_id_seq"), "vectors", ["model_id", "space_id", "seq"])
    op.create_index(op.f("ix_vectors_revision_id"), "vectors", ["revision_id"])
    op.create_index(op.f("ix_vectors_space_id_seq"), "vectors", ["space_id", "seq"])
    op.create_table(
        "cluster_members",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("cluster_id", sa.BigInteger()),
        sa.Column("similarity", sa.Double()),
        sa.Column("assigned_after_run", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_cluster_members_model_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["run_id", "cluster_id"],
            ["clusters.run_id", "clusters.cluster_id"],
            name=op.f("fk_cluster_members_run_id_cluster_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["cluster_runs.id"], name=op.f("fk_cluster_members_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "model_id", name=op.f("pk_cluster_members")),
    )
    op.create_index(op.f("ix_cluster_members_model_id"), "cluster_members", ["model_id"])
    op.create_index(
        op.f("ix_cluster_members_run_id_cluster_id_similarity"),
        "cluster_members",
        ["run_id", "cluster_id", "similarity"],
    )
    for table in UNCOMPRESSED:
        op.execute(f"ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL")
    for statement in (NOTE_INSERTED, NOTE_UPDATED, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    for function in ("note_inserted_jobs()", "note_updated_jobs()", "model_words(text, text[], text)"):
        op.execute(f"DROP FUNCTION {function}")
    for sequence in SEQUENCES:
        op.execute(sa.schema.DropSequence(sa.Sequence(sequence)))
