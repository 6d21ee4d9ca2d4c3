"""When an index is built anew. Looked at by the sweep, so this imports no faiss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.index import repository as snapshots
from catalog.queue import ring_build


@dataclass(frozen=True)
class Policy:
    """A space gets a main segment above `exact_bytes` bytes of float32 vectors, and a new one when changes reach `rows`
    and a `share` of it. Until then a search compares them one by one: at 100,000 x 4,096 and a share of 0.02 that
    is 33 MB, or 1.6 ms.
    """

    exact_bytes: int
    rows: int = 1_000
    share: float = 0.02


def due(session: Session, policy: Policy, folder: Path, space_id: int | None = None) -> list[int]:
    """Spaces whose index is to be built now: they changed enough, or their newest segment is broken or not there."""
    found = snapshots.due(
        session, exact_bytes=policy.exact_bytes, rows=policy.rows, share=policy.share, space_id=space_id
    )
    return [each.space_id for each in found if each.rebuild or (each.path and not (folder / each.path).is_dir())]


def ring_for_due(database: Database, policy: Policy, folder: Path) -> list[int]:
    """Tell the builders what is due. Rung again at every sweep: a message that nobody takes in time expires."""
    with database.transaction() as session:
        spaces = due(session, policy, folder)
    for space_id in spaces:
        ring_build(space_id)
    return spaces
