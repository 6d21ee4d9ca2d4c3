"""Listing of spaces."""

from __future__ import annotations

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.spaces import repository as spaces
from catalog.tables import SpaceRow


def list_spaces(database: Database, viewer: Viewer = PUBLIC) -> list[SpaceRow]:
    """List the spaces in which the viewer sees a model, newest first."""
    with database.transaction() as session:
        return spaces.list_visible(session, viewer)
