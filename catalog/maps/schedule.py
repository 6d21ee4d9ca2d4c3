"""Enqueues the maps that are due. The sweep imports this module, so it must not import FAISS."""

from __future__ import annotations

from catalog.database import Database
from catalog.maps import repository as maps
from catalog.queue import MAP_BUILD, enqueue_fit
from catalog.vectors import refresh_policy


def enqueue_due(database: Database, policy: refresh_policy.RefreshPolicy) -> list[int]:
    """Enqueue the maps of the spaces that are due by the refresh policy. Returns the ids of these spaces."""
    with database.transaction() as session:
        covered = maps.list_refreshable(
            session, cooldown_factor=refresh_policy.COOLDOWN_FACTOR, retry_delay=refresh_policy.RETRY_DELAY
        )
        due = refresh_policy.list_due(session, policy, covered)
    for space_id in due:
        enqueue_fit(MAP_BUILD, space_id)
    return due
