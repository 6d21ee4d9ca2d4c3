"""tasks by example

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("alone", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_constraint(op.f("ck_models_source"), "models")
    op.create_check_constraint(op.f("ck_models_source"), "models", "source IN ('hub', 'folder', 'examples')")
    op.create_table(
        "tasks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("viewer", sa.Text(), nullable=True),
        sa.Column("examples", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("keep_examples", sa.Boolean(), nullable=False),
        sa.Column("verify", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("recipe", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
    )
    op.create_index("uq_tasks_name", "tasks", [sa.text("coalesce(viewer, '')"), "name"], unique=True)
    op.create_index(
        "ix_tasks_examples", "tasks", ["id"], postgresql_where=sa.text("examples IS NOT NULL AND NOT keep_examples")
    )
    op.create_table(
        "task_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("task_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("base_repo", sa.Text(), nullable=False),
        sa.Column("base_sha", sa.Text(), nullable=False),
        sa.Column("figures", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_task_runs_task_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_task_runs_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_runs")),
        sa.UniqueConstraint("model_id", name=op.f("uq_task_runs_model_id")),
        sa.UniqueConstraint("task_id", "base_repo", "base_sha", name=op.f("uq_task_runs_task_id_base_repo_base_sha")),
    )
    op.create_table(
        "task_vectors",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("part", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dimension", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(data) = 4 * dimension", name=op.f("ck_task_vectors_length")),
        sa.ForeignKeyConstraint(["run_id"], ["task_runs.id"], name=op.f("fk_task_vectors_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_task_vectors_space_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "space_id", "part", name=op.f("pk_task_vectors")),
    )
    op.execute("ALTER TABLE task_vectors ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("DELETE FROM models WHERE source = 'examples'")
    for table in ("task_vectors", "task_runs", "tasks"):
        op.drop_table(table)
    op.drop_constraint(op.f("ck_models_source"), "models")
    op.create_check_constraint(op.f("ck_models_source"), "models", "source IN ('hub', 'folder')")
    op.drop_column("jobs", "alone")
