"""A model's revisions, with the norm of each and the cosine to the previous one that was current."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.models.repository import models, revisions
from catalog.models.repository.revisions import Measurement
from catalog.tables import Model, Revision, SpaceRow


@dataclass(frozen=True)
class RevisionMeasurement:
    """A revision measured in one space, compared with the model's previous revision there.

    `norm_before` and `cosine` are None without a previous revision in that space; `cosine` also if a norm is 0.
    """

    space: SpaceRow
    norm: float
    no_shift: bool
    norm_before: float | None
    cosine: float | None


@dataclass(frozen=True)
class MeasuredRevision:
    revision: Revision
    measurements: list[RevisionMeasurement]


def list_revisions(
    database: Database, repo_id: str, *, before: int | None, limit: int, viewer: Viewer = PUBLIC
) -> tuple[Model, list[MeasuredRevision]]:
    """The model, and up to `limit` revisions with an id below `before`, newest first. Raises `ModelNotFound`."""
    with database.transaction() as session:
        model = models.get(session, repo_id, viewer)
        page = revisions.list_page(session, model.id, before=before, limit=limit)
        measurements = revisions.list_measurements(session, model.id, [revision.id for revision in page])
    return model, [
        MeasuredRevision(revision, [_compare(measurement) for measurement in measurements.get(revision.id, [])])
        for revision in page
    ]


def _compare(row: Measurement) -> RevisionMeasurement:
    cosine = None
    if row.data_before is not None:
        vector, previous = (np.frombuffer(data, dtype="<f4").astype(np.float64) for data in (row.data, row.data_before))
        norms = float(np.linalg.norm(vector) * np.linalg.norm(previous))
        cosine = float(np.clip(vector @ previous / norms, -1, 1)) if norms else None
    return RevisionMeasurement(row.space, row.norm, row.no_shift, row.norm_before, cosine)
