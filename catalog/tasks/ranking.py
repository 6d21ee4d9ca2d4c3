"""The models nearest to a task, and how certain each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from catalog.database import Database
from catalog.errors import TaskNotDone
from catalog.geometry.transforms import RAW, Geometry
from catalog.index.follower import Follower
from catalog.search import service as search_service
from catalog.search.service import Answer, Neighbour, Options
from catalog.tables import SpaceRow, TaskRun
from catalog.tasks import repository as tasks
from catalog.tasks.nearest import leading
from catalog.tasks.uncertainty import half_width, similarities
from catalog.vectors.repository import stream as vector_stream

CROWD = 50  # of the nearest, among which halves of the examples choose theirs

# by feature and geometry: the least similarity of the nearest model that is more than models of other tasks have
# (docs/tasks.md)
COVERED = {
    "delta_layers": {RAW: 0.70, "centred": 0.47, "softened": 0.66, "denoised": 0.83},
    "delta_activations": {RAW: 0.76, "centred": 0.53, "softened": 0.70, "denoised": 0.91},
}


@dataclass(frozen=True)
class Certainty:
    """Between what a neighbour's similarity lies for other examples of the task, and to what share of the halves it
    is the nearest.
    """

    low: float
    high: float
    first: float


@dataclass(frozen=True)
class TaskAnswer:
    """The neighbours of a task on one base, and how certain each is, in their order; whether the nearest is near enough
    for the task to be `covered` (None: what that takes was not measured in this space).
    """

    run: TaskRun
    answer: Answer
    certainty: list[Certainty]
    covered: bool | None


def rank(database: Database, index: Follower, task_id: int, base: str | None, options: Options) -> list[TaskAnswer]:
    """The models nearest to a task on each of its bases, or on one of them.

    Raises `TaskNotFound`, `TaskNotDone`, `GeometryNotFitted`, `IndexNotLoaded`.
    """
    with database.transaction() as session:
        task = tasks.get(session, task_id, options.viewer)
        runs = [run for run in task.runs if base in (None, run.base_repo)]
        measured = {run.id: tasks.vectors(session, run.id) for run in runs}
    done = [run for run in runs if measured[run.id]]
    if not done:
        raise TaskNotDone(f"Task {task_id} has no vector yet: GET /v1/tasks/{task_id} tells how far its jobs are.")
    return [_rank(database, index, run, *leading(measured[run.id]), options) for run in done]


def _rank(
    database: Database, index: Follower, run: TaskRun, space: SpaceRow, vectors: np.ndarray, options: Options
) -> TaskAnswer:
    whole, halves = vectors[0], vectors[1:]
    wide = replace(options, space_key=space.key, page=replace(options.page, k=max(options.page.k, CROWD)))
    answer = search_service.by_vector(database, index, whole.tolist(), wide)
    geometry, kind = (answer.fitted.geometry, answer.fitted.kind) if answer.fitted else (Geometry(), RAW)
    neighbours, theirs = _still_there(database, space, answer.neighbours)
    cosines = similarities(geometry, halves, theirs)  # (h, n)
    first = np.bincount(cosines.argmax(axis=1), minlength=cosines.shape[1]).tolist() if cosines.size else []
    certainty = [
        Certainty(each.similarity - width, each.similarity + width, count / len(halves))
        for each, width, count in zip(neighbours, half_width(cosines).tolist(), first, strict=True)
    ]
    best = neighbours[0].similarity if neighbours else -1.0
    least = COVERED.get(space.feature, {}).get(kind)
    shown = replace(answer, neighbours=neighbours[: options.page.k])
    return TaskAnswer(run, shown, certainty[: options.page.k], None if least is None else best >= least)


def _still_there(
    database: Database, space: SpaceRow, neighbours: Sequence[Neighbour]
) -> tuple[list[Neighbour], np.ndarray]:
    """Neighbours that Postgres still has, and their vectors (n, d): an index learns a moment later who has left."""
    ids = np.array([each.model.id for each in neighbours], np.int64)
    with database.transaction() as session:
        found, vectors = vector_stream.newest_of(session.connection(), space.id, space.dimension, ids)
    place = {model_id: number for number, model_id in enumerate(found.tolist())}
    left = [each for each in neighbours if each.model.id in place]
    return left, vectors[[place[each.model.id] for each in left]]
