"""models that were read with a user's token, who may see them, and that token on its job

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ACTIVE = "state IN ('queued', 'fetching', 'encoding')"


def _unique_active(where: str) -> None:
    op.drop_index("uq_jobs_active", table_name="jobs")
    same = ["model_id", sa.text("coalesce(requested_revision, '')"), sa.text("coalesce(reindex_id, 0)")]
    op.create_index("uq_jobs_active", "jobs", same, unique=True, postgresql_where=sa.text(where))


def upgrade() -> None:
    op.add_column("models", sa.Column("private", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_constraint(op.f("uq_models_repo_id"), "models", type_="unique")
    op.create_unique_constraint(op.f("uq_models_repo_id_private"), "models", ["repo_id", "private"])
    op.create_index("ix_models_private", "models", ["id"], unique=False, postgresql_where=sa.text("private"))
    op.create_table(
        "model_access",
        sa.Column("model_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("by_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_model_access_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model_id", "submitter", name=op.f("pk_model_access")),
    )
    op.add_column("jobs", sa.Column("viewer", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("token", sa.LargeBinary(), nullable=True))
    op.add_column("jobs", sa.Column("token_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_jobs_token"),
        "jobs",
        f"token IS NULL OR (viewer IS NOT NULL AND token_at IS NOT NULL AND {ACTIVE})",
    )
    op.create_index(
        "ix_jobs_viewer", "jobs", ["viewer", "id"], unique=False, postgresql_where=sa.text("viewer IS NOT NULL")
    )
    op.create_index(
        "ix_jobs_token_at", "jobs", ["token_at"], unique=False, postgresql_where=sa.text("token IS NOT NULL")
    )
    _unique_active(f"{ACTIVE} AND viewer IS NULL")


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE viewer IS NOT NULL")
    op.execute("DELETE FROM vectors USING models WHERE models.id = vectors.model_id AND models.private")
    op.execute("DELETE FROM models WHERE private")
    _unique_active(ACTIVE)
    op.drop_index("ix_jobs_token_at", table_name="jobs")
    op.drop_index("ix_jobs_viewer", table_name="jobs")
    op.drop_constraint(op.f("ck_jobs_token"), "jobs", type_="check")
    for column in ("token_at", "token", "viewer"):
        op.drop_column("jobs", column)
    op.drop_table("model_access")
    op.drop_index("ix_models_private", table_name="models")
    op.drop_constraint(op.f("uq_models_repo_id_private"), "models", type_="unique")
    op.create_unique_constraint(op.f("uq_models_repo_id"), "models", ["repo_id"])
    op.drop_column("models", "private")
