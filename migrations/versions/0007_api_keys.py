"""Adds API keys. Keys that users chose themselves until now become submitters' keys, so that they keep what is theirs.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# where the hashes of keys are stored
OWNERS = (
    ("model_access", "submitter"),
    ("jobs", "submitter"),
    ("jobs", "viewer"),
    ("tasks", "viewer"),
    ("merges", "viewer"),
    ("selections", "viewer"),
    ("stored_vectors", "viewer"),
)


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("max_active_jobs", sa.BigInteger()),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("role IN ('reader', 'submitter', 'admin')", name=op.f("ck_api_keys_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_keys_hash")),
    )
    hashes = " UNION ".join(f"SELECT {column} AS hash FROM {table}" for table, column in OWNERS)
    op.execute(
        "INSERT INTO api_keys (prefix, hash, name, role, created_by) "
        "SELECT 'own_' || left(hash, 12), hash, 'chosen by its user', 'submitter', 'migration' "
        f"FROM ({hashes}) AS owners WHERE hash ~ '^[0-9a-f]{{64}}$' ORDER BY hash"
    )


def downgrade() -> None:
    op.drop_table("api_keys")
