"""Lists of spaces."""

from __future__ import annotations

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.spaces import repository as spaces
from catalog.tables import SpaceRow


def page(database: Database, viewer: Viewer = PUBLIC) -> list[SpaceRow]:
    """The spaces that hold vectors, the newest first."""
    with database.transaction() as session:
        return spaces.page(session, viewer)
