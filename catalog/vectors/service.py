"""The measurements of a model."""

from __future__ import annotations

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.models.curation import CuratedModel
from catalog.models.repository import curation, models
from catalog.spaces import repository as spaces
from catalog.tables import BaseProof
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import Measurement


def list_measurements(
    database: Database, repo_id: str, viewer: Viewer = PUBLIC
) -> tuple[CuratedModel, list[Measurement], BaseProof | None]:
    """A model with its curation, its measurements in spaces, and the proof of its base. Raises `ModelNotFound`."""
    with database.transaction() as session:
        model = models.get(session, repo_id, viewer)
        revision = model.revision
        proof = spaces.find_proof(session, revision.base_repo, revision.base_sha) if revision else None
        curated = CuratedModel(model, curation.get_by_ids(session, [model.id])[model.id])
        return curated, vectors.list_measurements(session, model.id), proof
