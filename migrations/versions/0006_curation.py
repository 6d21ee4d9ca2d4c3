"""Stores team tags, team notes and aliases of models, and the team tags that a selection requires.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("team_tags", _model_id(), sa.Column("tag", sa.Text(), nullable=False), *_author(),
        sa.PrimaryKeyConstraint("model_id", "tag", name="pk_team_tags"),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_team_tags_model_id", ondelete="CASCADE"
        ),
    )  # fmt: skip
    op.create_index("ix_team_tags_tag_model_id", "team_tags", ["tag", "model_id"])
    op.create_table("team_notes", _model_id(), sa.Column("text", sa.Text(), nullable=False), *_author(),
        sa.PrimaryKeyConstraint("model_id", name="pk_team_notes"),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_team_notes_model_id", ondelete="CASCADE"
        ),
    )  # fmt: skip
    op.create_table("aliases", sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False), _model_id(), sa.Column("private", sa.Boolean(), nullable=False),
        *_author(),
        sa.PrimaryKeyConstraint("id", name="pk_aliases"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_aliases_model_id", ondelete="CASCADE"),
    )  # fmt: skip
    op.create_index("ix_aliases_name", "aliases", ["name"])
    op.create_index("ix_aliases_model_id", "aliases", ["model_id"])
    op.create_index("uq_aliases_public", "aliases", ["name"], unique=True, postgresql_where=sa.text("NOT private"))
    op.add_column(
        "selections",
        sa.Column("team_tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("selections", "team_tags")
    for table in ("aliases", "team_notes", "team_tags"):
        op.drop_table(table)


def _model_id() -> sa.Column:
    return sa.Column("model_id", sa.BigInteger(), nullable=False)


def _author() -> tuple[sa.Column, sa.Column]:
    return (
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
