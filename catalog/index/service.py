"""What is known of the builds of indexes."""

from __future__ import annotations

from collections.abc import Collection

from catalog.database import Database
from catalog.index import repository as snapshots


def build_errors(database: Database, space_ids: Collection[int]) -> dict[int, str]:
    """The error of each space's last build, of those whose last build failed."""
    with database.transaction() as session:
        return snapshots.build_errors(session, space_ids)
