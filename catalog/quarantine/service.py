"""Quarantined repos and bases: listing and lifting."""

from __future__ import annotations

from catalog.database import Database
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.tables import QuarantineEntry


def list_page(
    database: Database, *, repo_id: str | None = None, before: int | None, limit: int
) -> list[QuarantineEntry]:
    """Up to `limit` quarantined repos and bases with an id below `before`, newest first."""
    with database.transaction() as session:
        return quarantine.list_page(session, repo_id=repo_id, before=before, limit=limit)


def lift(database: Database, entry_id: int) -> QuarantineEntry:
    """Delete an entry and return it: its files are read again, and nothing counts against them. Raises
    `QuarantineNotFound`.
    """
    with database.transaction() as session:
        entry = quarantine.get(session, entry_id)
        session.delete(entry)
    return entry


def check_base(database: Database, repo_id: str, sha: str) -> None:
    """Raises `BaseQuarantined` if a base is quarantined at this commit."""
    with database.transaction() as session:
        quarantine.check(session, QuarantineKey.of_base(repo_id, sha), repo_id)
