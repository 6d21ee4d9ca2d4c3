"""SQL of the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from catalog.database import newest_first
from catalog.tables import AuditEntry


def add(session: Session, *, actor: str, action: str, target: str, address: str, outcome: str) -> None:
    session.add(AuditEntry(actor=actor, action=action, target=target, address=address, outcome=outcome))


def list_page(
    session: Session, *, actor: str | None, target: str | None, before: int | None, limit: int
) -> Sequence[AuditEntry]:
    """Up to `limit` entries with an id below `before`, newest first; of one actor or about one target, if given."""
    statement = select(AuditEntry)
    if actor is not None:
        statement = statement.where(AuditEntry.actor.contains(actor, autoescape=True))
    if target is not None:
        statement = statement.where(AuditEntry.target == target)
    return session.scalars(newest_first(statement, AuditEntry.id, before, limit)).all()


def delete_expired(session: Session, retention: float, limit: int) -> None:
    """Delete up to `limit` entries that are older than `retention` seconds."""
    expired = select(AuditEntry.id).where(AuditEntry.at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, retention))
    session.execute(delete(AuditEntry).where(AuditEntry.id.in_(expired.order_by(AuditEntry.id).limit(limit))))
