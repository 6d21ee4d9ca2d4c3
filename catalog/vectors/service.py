"""The measurements of a model."""

from __future__ import annotations

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.models.repository import models
from catalog.tables import Model
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import Measurement


def list_measurements(database: Database, repo_id: str, viewer: Viewer = PUBLIC) -> tuple[Model, list[Measurement]]:
    """A model and its measurements in spaces. Raises `ModelNotFound`."""
    with database.transaction() as session:
        model = models.get(session, repo_id, viewer)
        return model, vectors.list_measurements(session, model.id)
