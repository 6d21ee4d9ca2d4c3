"""The state of index builds."""

from __future__ import annotations

from collections.abc import Collection

from catalog.database import Database
from catalog.index import repository as snapshots


def build_errors(database: Database, space_ids: Collection[int]) -> dict[int, str]:
    """The error of the last build of each space whose last build failed."""
    with database.transaction() as session:
        return snapshots.build_errors(session, space_ids)
