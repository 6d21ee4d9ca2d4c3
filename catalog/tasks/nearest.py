"""The models nearest to a task, found without an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy.orm import Session

from catalog.geometry import repository as geometries
from catalog.geometry.transforms import Geometry
from catalog.models.repository import models
from catalog.spaces.contract import preference_rank
from catalog.tables import Model, SpaceRow
from catalog.tasks.uncertainty import similarities
from catalog.vectors.repository import stream as vector_stream


def leading(measured: Sequence[tuple[SpaceRow, np.ndarray]]) -> tuple[SpaceRow, np.ndarray]:
    """Of a run's spaces that of the most preferred feature, and its vectors (1 + h, d)."""
    return min(measured, key=lambda each: preference_rank(each[0].feature))


def nearest(
    session: Session, homes: Mapping[str, SpaceRow], measured: Mapping[str, np.ndarray], count: int
) -> list[tuple[Model, float]]:
    """The public models nearest to a task in the geometry that searches use unasked, compared with all: for a worker,
    which has no index.
    """
    feature = min(measured, key=preference_rank)
    space, whole = homes[feature], measured[feature][0]
    fitted = geometries.default(session, space)
    geometry = fitted.geometry if fitted else Geometry()
    found: list[tuple[float, int]] = []
    for ids, vectors in vector_stream.stream(session, space.id, space.dimension, public=True):
        cosines = similarities(geometry, whole[None], vectors)[0]
        found = sorted([*found, *zip(cosines.tolist(), ids.tolist(), strict=True)], reverse=True)[:count]
    named = models.by_ids(session, {model_id for _, model_id in found})
    return [(named[model_id], cosine) for cosine, model_id in found if model_id in named]
