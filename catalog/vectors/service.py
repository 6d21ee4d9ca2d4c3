"""What is measured of a model."""

from __future__ import annotations

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.models.repository import models
from catalog.tables import Model
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import Measured


def measured(database: Database, repo_id: str, viewer: Viewer = PUBLIC) -> tuple[Model, list[Measured]]:
    """A model, and what is known of it in each space. Raises `ModelNotFound`."""
    with database.transaction() as session:
        model = models.get(session, repo_id, viewer)
        return model, vectors.measured(session, model.id)
