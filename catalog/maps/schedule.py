"""When a map is drawn anew. Looked at by the sweep, so this imports no faiss."""

from __future__ import annotations

from catalog.database import Database
from catalog.maps import repository as maps
from catalog.queue import MAP_DRAW, ring_fit
from catalog.vectors import refresh_policy


def ring_for_due(database: Database, policy: refresh_policy.Policy) -> list[int]:
    """Ring for the maps of spaces that changed enough. Returns the spaces rung for."""
    with database.transaction() as session:
        covered = maps.covered(session, rest=refresh_policy.REST, after_failure=refresh_policy.AFTER_FAILURE)
        due = refresh_policy.due(session, policy, covered)
    for space_id in due:
        ring_fit(MAP_DRAW, space_id)
    return due
