"""clusters, their members, and the runs that found them; the words of cards

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE SEQUENCE cluster_number")
    op.add_column("models", sa.Column("card", sa.Text(), nullable=True))
    op.create_table(
        "cluster_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("space_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("current", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(), nullable=False),
        sa.Column("covered_seq", sa.BigInteger(), nullable=True),
        sa.Column("models", sa.BigInteger(), nullable=True),
        sa.Column("clusters", sa.BigInteger(), nullable=True),
        sa.Column("sizes", postgresql.ARRAY(sa.BigInteger()), nullable=True),
        sa.Column("noise_share", sa.Double(), nullable=True),
        sa.Column("silhouette", sa.Double(), nullable=True),
        sa.Column("stability", sa.Double(), nullable=True),
        sa.Column("compared_with", sa.BigInteger(), nullable=True),
        sa.Column("figures", postgresql.JSONB(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_cluster_runs_state")),
        sa.ForeignKeyConstraint(["space_id"], ["spaces.id"], name=op.f("fk_cluster_runs_space_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["compared_with"], ["cluster_runs.id"], name=op.f("fk_cluster_runs_compared_with"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cluster_runs")),
    )
    op.create_index(
        "uq_cluster_runs_current", "cluster_runs", ["space_id"], unique=True, postgresql_where=sa.text("current")
    )
    op.create_index(
        "uq_cluster_runs_active",
        "cluster_runs",
        ["space_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(op.f("ix_cluster_runs_space_id_id"), "cluster_runs", ["space_id", "id"], unique=False)
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
        sa.ForeignKeyConstraint(["run_id"], ["cluster_runs.id"], name=op.f("fk_clusters_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["medoid_id"], ["models.id"], name=op.f("fk_clusters_medoid_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "cluster_id", name=op.f("pk_clusters")),
    )
    op.create_index(op.f("ix_clusters_cluster_id_run_id"), "clusters", ["cluster_id", "run_id"], unique=False)
    op.create_table(
        "cluster_members",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.BigInteger(), nullable=False),
        sa.Column("cluster_id", sa.BigInteger(), nullable=True),
        sa.Column("similarity", sa.Double(), nullable=True),
        sa.Column("placed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "cluster_id"],
            ["clusters.run_id", "clusters.cluster_id"],
            name=op.f("fk_cluster_members_run_id_cluster_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["cluster_runs.id"], name=op.f("fk_cluster_members_run_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_cluster_members_model_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "model_id", name=op.f("pk_cluster_members")),
    )
    op.create_index(
        op.f("ix_cluster_members_run_id_cluster_id_similarity"),
        "cluster_members",
        ["run_id", "cluster_id", "similarity"],
        unique=False,
    )
    op.create_index(op.f("ix_cluster_members_model_id"), "cluster_members", ["model_id"], unique=False)


def downgrade() -> None:
    op.drop_table("cluster_members")
    op.drop_table("clusters")
    op.drop_table("cluster_runs")
    op.drop_column("models", "card")
    op.execute("DROP SEQUENCE cluster_number")
