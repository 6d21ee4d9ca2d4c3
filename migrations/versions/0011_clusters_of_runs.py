"""Removes the cluster of a model, which its membership in the current run says, and the unique constraint of its seq.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("uq_models_seq"), "models", type_="unique")
    op.create_index(op.f("ix_models_seq"), "models", ["seq"])
    op.drop_column("models", "cluster")


def downgrade() -> None:
    op.add_column("models", sa.Column("cluster", sa.BigInteger(), nullable=True))
    op.execute("""
        UPDATE models SET cluster = members.cluster_id
        FROM cluster_members AS members JOIN cluster_runs AS runs ON runs.id = members.run_id AND runs.current
        WHERE members.model_id = models.id AND members.cluster_id IS NOT NULL AND runs.space_id IN (
            SELECT DISTINCT ON (base_repo) id FROM spaces
            WHERE serving AND feature IN ('delta_layers', 'delta_activations')
            ORDER BY base_repo, feature DESC, id DESC
        )
    """)
    op.drop_index(op.f("ix_models_seq"), table_name="models")
    op.create_unique_constraint(op.f("uq_models_seq"), "models", ["seq"])
