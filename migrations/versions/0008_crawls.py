"""crawls, former names, removed models, and the words that models are searched by

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MODEL_WORDS = r"""
CREATE OR REPLACE FUNCTION model_words(repo_id text, tags text[], card text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    WITH told AS (
        SELECT regexp_replace(repo_id, '[ -/:-@[-`{-~\s]+', ' ', 'g') AS name,
            regexp_replace(array_to_string(tags, ' '), '[ -/:-@[-`{-~\s]+', ' ', 'g') AS labels,
            regexp_replace(coalesce(card, ''), '[ -/:-@[-`{-~\s]+', ' ', 'g') AS card
    )
    SELECT setweight(to_tsvector('simple', name || ' ' || regexp_replace(name, '([0-9]+)', ' \1 ', 'g')), 'A')
        || setweight(to_tsvector('simple', labels || ' ' || regexp_replace(labels, '([0-9]+)', ' \1 ', 'g')), 'B')
        || setweight(to_tsvector('simple', told.card), 'C')
    FROM told
$$
"""
STATES = "'pending', 'indexed', 'no_shift', 'failed'"
NONE_YET = sa.text("'{}'::text[]")


def upgrade() -> None:
    op.execute(MODEL_WORDS)
    op.drop_constraint(op.f("ck_models_state"), "models", type_="check")
    op.create_check_constraint(op.f("ck_models_state"), "models", f"state IN ({STATES}, 'removed')")
    op.add_column("models", sa.Column("datasets", postgresql.ARRAY(sa.Text()), server_default=NONE_YET, nullable=False))
    op.add_column(
        "models", sa.Column("languages", postgresql.ARRAY(sa.Text()), server_default=NONE_YET, nullable=False)
    )
    op.add_column("models", sa.Column("hub_created_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("models", sa.Column("hub_id", sa.Text(), nullable=True))
    op.add_column("models", sa.Column("hub_sha", sa.Text(), nullable=True))
    op.add_column(
        "models",
        sa.Column(
            "words",
            postgresql.TSVECTOR(),
            sa.Computed("model_words(repo_id, tags, card)", persisted=True),
            nullable=False,
        ),
    )
    op.create_index(op.f("ix_models_hub_id"), "models", ["hub_id"], unique=False)
    op.create_index(op.f("ix_models_words"), "models", ["words"], unique=False, postgresql_using="gin")
    op.create_table(
        "crawls",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("source", postgresql.JSONB(), nullable=False),
        sa.Column("ids", postgresql.JSONB(), nullable=True),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("max_models", sa.BigInteger(), nullable=True),
        sa.Column("min_downloads", sa.BigInteger(), nullable=True),
        sa.Column("every", sa.BigInteger(), nullable=True),
        sa.Column("run", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("listing", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        *(
            sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)
            for name in ("pages", "listed", "queued", "unchanged", "skipped", "size", "sized", "attempts")
        ),
        sa.Column("wait_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        *(
            sa.Column(name, sa.DateTime(timezone=True), nullable=True)
            for name in ("started_at", "stepped_at", "finished_at", "covered_at", "next_at")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')", name=op.f("ck_crawls_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crawls")),
    )
    op.create_index(
        "ix_crawls_active",
        "crawls",
        ["stepped_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "former_names",
        sa.Column("repo_id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_former_names_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("repo_id", name=op.f("pk_former_names")),
    )
    op.create_index(op.f("ix_former_names_model_id"), "former_names", ["model_id"], unique=False)


def downgrade() -> None:
    op.drop_table("former_names")
    op.drop_table("crawls")
    op.drop_index(op.f("ix_models_words"), table_name="models")
    op.drop_index(op.f("ix_models_hub_id"), table_name="models")
    for column in ("words", "hub_sha", "hub_id", "hub_created_at", "languages", "datasets"):
        op.drop_column("models", column)
    op.execute("UPDATE models SET state = 'failed' WHERE state = 'removed'")
    op.drop_constraint(op.f("ck_models_state"), "models", type_="check")
    op.create_check_constraint(op.f("ck_models_state"), "models", f"state IN ({STATES})")
    op.execute("DROP FUNCTION model_words(text, text[], text)")
