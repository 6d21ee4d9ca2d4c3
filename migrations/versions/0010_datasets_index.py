"""Adds an index of the datasets of models, by which expressions find known mixtures.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_models_datasets"), "models", ["datasets"], postgresql_using="gin")


def downgrade() -> None:
    op.drop_index(op.f("ix_models_datasets"), table_name="models")
