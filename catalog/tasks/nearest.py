"""The models nearest to a task, by exhaustive search without an index."""

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


def select_preferred(measured: Sequence[tuple[SpaceRow, np.ndarray]]) -> tuple[SpaceRow, np.ndarray]:
    """The space of the most preferred feature that a run was measured in, and the run's vectors (1 + h, d) there."""
    return min(measured, key=lambda item: preference_rank(item[0].feature))


def nearest_models(
    session: Session, spaces: Mapping[str, SpaceRow], vectors: Mapping[str, np.ndarray], count: int
) -> list[tuple[Model, float]]:
    """The `count` public models nearest to a task, each with its cosine in the default geometry, by exhaustive search:
    workers have no index. `spaces` and `vectors` (1 + h, d) are by feature; the most preferred feature is searched.
    """
    feature = min(vectors, key=preference_rank)
    space, query = spaces[feature], vectors[feature][0]
    fitted = geometries.find_default(session, space)
    geometry = fitted.geometry if fitted else Geometry()
    nearest: list[tuple[float, int]] = []
    for ids, block in vector_stream.stream(session, space.id, space.dimension, public=True):
        cosines = similarities(geometry, query[None], block)[0]
        nearest = sorted([*nearest, *zip(cosines.tolist(), ids.tolist(), strict=True)], reverse=True)[:count]
    by_id = models.get_by_ids(session, {model_id for _, model_id in nearest})
    return [(by_id[model_id], cosine) for cosine, model_id in nearest if model_id in by_id]
