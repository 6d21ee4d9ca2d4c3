"""The space that tests of the index build from."""

from __future__ import annotations

from catalog.index import repository as snapshots
from catalog.index.builder import Builder

COUNT, DIMENSION = 1_500, 32


def again(builder: Builder) -> int | None:
    """Build now, whatever was put off."""
    with builder.database.transaction() as session:
        snapshots.postpone(session, 1, 0)
    return builder.build(1, force=True)
