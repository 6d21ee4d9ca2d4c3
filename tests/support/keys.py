"""API keys of tests."""

from __future__ import annotations

from datetime import datetime

from catalog.auth.repository import keys
from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.tables import ApiKey, Role

ADMIN_KEY = "the admin key of all tests"  # the value of ADMIN_API_KEY in all tests
AS_ADMIN = {"X-API-Key": ADMIN_KEY}
AS_ANYBODY = {"X-API-Key": ""}  # for clients that send the admin key by default


def add_key(
    database: Database,
    key: str,
    role: Role = Role.SUBMITTER,
    *,
    expires_at: datetime | None = None,
    limit: int | None = None,
) -> ApiKey:
    """Store a key; `key` is also its name."""
    with database.transaction() as session:
        return keys.add(
            session, f"ddx_{hash_key(key)[:8]}", hash_key(key), key, role,
            created_by="a test", expires_at=expires_at, max_active_jobs=limit,
        )  # fmt: skip
