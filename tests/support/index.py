"""The size of the space that tests of the index use, and a helper to rebuild its index."""

from __future__ import annotations

from catalog.index import repository as snapshots
from catalog.index.builder import IndexBuilder

COUNT, DIMENSION = 1_500, 32


def rebuild(builder: IndexBuilder) -> int | None:
    """Build the index of space 1 now, even if a build is postponed."""
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    return builder.build(1, force=True)
