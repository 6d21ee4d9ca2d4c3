"""Entries of the quarantine."""

from __future__ import annotations

from sqlalchemy.orm import Session

from catalog.errors import WorkerLost
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey

LIMIT = 2  # ends of processes


def put_quarantine(session: Session, repo_id: str, sha: str = "") -> None:
    """Quarantine a repo at a commit, or at all of them."""
    key = QuarantineKey.of_repo(repo_id, sha)
    assert quarantine.count(session, key, WorkerLost("The worker died."), LIMIT, ends=LIMIT)


def put_quarantined_base(session: Session, repo_id: str, sha: str) -> None:
    key = QuarantineKey.of_base(repo_id, sha)
    assert quarantine.count(session, key, WorkerLost("The worker died."), LIMIT, ends=LIMIT)
