"""When a map is drawn anew. Looked at by the sweep, so this imports no faiss."""

from __future__ import annotations

from catalog import refits
from catalog.database import Database
from catalog.queue import MAP_DRAW, ring_fit
from catalog.repository import maps


def ring_for_due(database: Database, policy: refits.Policy) -> list[int]:
    """Ring for the maps of spaces that changed enough. Returns the spaces rung for."""
    with database.transaction() as session:
        covered = maps.covered(session, rest=refits.REST, after_failure=refits.AFTER_FAILURE)
        due = refits.due(session, policy, covered)
    for space_id in due:
        ring_fit(MAP_DRAW, space_id)
    return due
