"""Recording and reading of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.audit import repository
from catalog.database import Database
from catalog.tables import AuditEntry

DONE = "done"
MAX_TEXT = 500  # characters of a field


@dataclass(frozen=True)
class Act:
    """What is recorded: see `catalog.tables.AuditEntry`."""

    actor: str
    action: str
    target: str = ""
    address: str = ""
    outcome: str = DONE


def record(database: Database, act: Act) -> None:
    """Store an act. Raises `DatabaseUnavailable`."""
    fields = {name: _storable(value) for name, value in vars(act).items()}
    with database.transaction() as session:
        repository.add(session, **fields)


def list_page(
    database: Database, *, actor: str | None = None, target: str | None = None, before: int | None = None, limit: int
) -> Sequence[AuditEntry]:
    """Acts, newest first. `actor` is a part of the actor's name, `target` is exact."""
    with database.transaction() as session:
        return repository.list_page(session, actor=actor, target=target, before=before, limit=limit)


def _storable(value: str) -> str:
    return value.replace("\0", "")[:MAX_TEXT]
