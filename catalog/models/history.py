"""How far a model moved from revision to revision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.models.repository import models, revisions
from catalog.models.repository.revisions import Measurement
from catalog.tables import Model, Revision, SpaceRow


@dataclass(frozen=True)
class Move:
    """A revision in one space: its norm, and of the revision before it there the norm and the cosine to it. The two
    are None where there was none before it, or it is of another base; the cosine also where a norm is 0.
    """

    space: SpaceRow
    norm: float
    no_shift: bool
    norm_before: float | None
    cosine: float | None


@dataclass(frozen=True)
class Past:
    revision: Revision
    moves: list[Move]


def of_model(
    database: Database, repo_id: str, *, before: int | None, limit: int, viewer: Viewer = PUBLIC
) -> tuple[Model, list[Past]]:
    """Up to `limit` revisions with an id below `before`, the newest first. Raises `ModelNotFound`."""
    with database.transaction() as session:
        model = models.get(session, repo_id, viewer)
        found = revisions.page(session, model.id, before=before, limit=limit)
        measured = revisions.measured(session, model.id, [each.id for each in found])
    return model, [Past(each, [_move(one) for one in measured.get(each.id, [])]) for each in found]


def _move(found: Measurement) -> Move:
    cosine = None
    if found.data_before is not None:
        now, then = (np.frombuffer(data, dtype="<f4").astype(np.float64) for data in (found.data, found.data_before))
        length = float(np.linalg.norm(now) * np.linalg.norm(then))
        cosine = float(np.clip(now @ then / length, -1, 1)) if length else None
    return Move(found.space, found.norm, found.no_shift, found.norm_before, cosine)
