"""The models nearest to a task, and how certain each similarity is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from catalog.database import Database
from catalog.errors import TaskNotFinished
from catalog.geometry.transforms import CENTERED, RAW, SOFTENED, Geometry
from catalog.index.follower import IndexFollower
from catalog.search import service as search_service
from catalog.search.service import Neighbor, SearchAnswer, SearchOptions
from catalog.tables import SpaceRow, TaskRun
from catalog.tasks import repository as tasks
from catalog.tasks.nearest import select_preferred
from catalog.tasks.uncertainty import confidence_half_width, similarities
from catalog.vectors.repository import stream as vector_stream

CANDIDATE_POOL = 50  # nearest models that are compared with the halves of the examples

# by feature and geometry: a task is covered if the nearest model has at least this similarity; models of other tasks
# stay below it (docs/tasks.md)
COVERED_SIMILARITY = {
    "delta_layers": {RAW: 0.70, SOFTENED: 0.66},
    "delta_activations": {RAW: 0.76, CENTERED: 0.53},
}


@dataclass(frozen=True)
class Uncertainty:
    """The 95% interval of a neighbor's similarity over other examples of the task, and the share of the halves to
    which the neighbor is the nearest.
    """

    low: float
    high: float
    nearest_share: float


@dataclass(frozen=True)
class TaskAnswer:
    """The neighbors of a task on one base, and the uncertainty of each, in the same order. `covered` says whether the
    nearest model is nearer than models of other tasks are; it is None if no threshold was measured for the space.
    """

    run: TaskRun
    answer: SearchAnswer
    uncertainties: list[Uncertainty]
    covered: bool | None


def rank_models(
    database: Database, index: IndexFollower, task_id: int, base: str | None, options: SearchOptions
) -> list[TaskAnswer]:
    """The models nearest to a task on each of its bases, or on one of them.

    Raises `TaskNotFound`, `TaskNotFinished`, `IndexNotLoaded`.
    """
    with database.transaction() as session:
        task = tasks.get(session, task_id, options.viewer)
        runs = [run for run in task.runs if base in (None, run.base_repo)]
        vectors = {run.id: tasks.get_vectors(session, run.id) for run in runs}
    measured = [run for run in runs if vectors[run.id]]
    if not measured:
        raise TaskNotFinished(f"Task {task_id} has no vector yet: GET /v1/tasks/{task_id} shows the state of its jobs.")
    return [_rank(database, index, run, *select_preferred(vectors[run.id]), options) for run in measured]


def _rank(
    database: Database, index: IndexFollower, run: TaskRun, space: SpaceRow, vectors: np.ndarray, options: SearchOptions
) -> TaskAnswer:
    k, halves = options.page.k, vectors[1:]
    pool = replace(options, space_key=space.key, page=replace(options.page, k=max(k, CANDIDATE_POOL)))
    answer = search_service.by_vector(database, index, vectors[0].tolist(), pool)
    geometry, kind = (answer.fitted.geometry, answer.fitted.kind) if answer.fitted else (Geometry(), RAW)
    neighbors, neighbor_vectors = _with_vectors(database, space, answer.neighbors)
    cosines = similarities(geometry, halves, neighbor_vectors)  # (h, n)
    counts = np.bincount(cosines.argmax(axis=1), minlength=cosines.shape[1]).tolist() if cosines.size else []
    uncertainties = [
        Uncertainty(neighbor.similarity - width, neighbor.similarity + width, count / len(halves))
        for neighbor, width, count in zip(neighbors, confidence_half_width(cosines).tolist(), counts, strict=True)
    ]
    highest = neighbors[0].similarity if neighbors else -1.0
    threshold = COVERED_SIMILARITY.get(space.feature, {}).get(kind)
    covered = None if threshold is None else highest >= threshold
    return TaskAnswer(run, replace(answer, neighbors=neighbors[:k]), uncertainties[:k], covered)


def _with_vectors(
    database: Database, space: SpaceRow, neighbors: Sequence[Neighbor]
) -> tuple[list[Neighbor], np.ndarray]:
    """The neighbors and their vectors (n, d), without models that were deleted since the index was last updated."""
    ids = np.array([neighbor.model.id for neighbor in neighbors], np.int64)
    with database.transaction() as session:
        stored_ids, vectors = vector_stream.newest_vectors(session.connection(), space.id, space.dimension, ids)
    rows = {model_id: row for row, model_id in enumerate(stored_ids.tolist())}
    stored = [neighbor for neighbor in neighbors if neighbor.model.id in rows]
    return stored, vectors[[rows[neighbor.model.id] for neighbor in stored]]
