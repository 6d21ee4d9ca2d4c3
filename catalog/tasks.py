"""Tasks by example: asking for the models that fit some examples, and the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from sqlalchemy.orm import Session

from catalog import search, submissions
from catalog.archives import Download, download
from catalog.database import Database
from catalog.errors import ArchiveNotFound, TaskNotDone
from catalog.examples import Example
from catalog.geometry import RAW, Geometry
from catalog.index import Follower
from catalog.quotas import Quota
from catalog.recipe import Recipe
from catalog.repository import archives, geometries, models, spaces, tasks, vector_stream
from catalog.search import Answer, Neighbour, Options
from catalog.spaces import PREFERRED
from catalog.tables import Job, Model, SpaceRow, Task, TaskRun
from catalog.task_vectors import half_width, similarities
from catalog.viewers import Viewer

CROWD = 50  # of the nearest, among which halves of the examples choose theirs
HELD_BACK = 0.25  # of the examples, where models are to be verified
# by feature and geometry: the least similarity of the nearest model that is more than models of other tasks have
# (docs/tasks.md)
COVERED = {
    "delta_layers": {RAW: 0.70, "centred": 0.47, "softened": 0.66, "denoised": 0.83},
    "delta_activations": {RAW: 0.76, "centred": 0.53, "softened": 0.70, "denoised": 0.91},
}


@dataclass(frozen=True)
class Question:
    """`base` is a repo id; None asks on every base in the index, the smallest first. `verify` models are scored on
    examples that are held back.
    """

    examples: Sequence[Example]
    base: str | None = None
    name: str | None = None
    verify: int = 0
    seed: int = 0
    keep_examples: bool = False
    keep_adapter: bool = False
    recipe: Recipe = field(default_factory=Recipe)


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


WithJobs = tuple[Task, dict[int, Job]]  # a task, and the job of each of its runs


def ask(database: Database, question: Question, quota: Quota, viewer: Viewer) -> WithJobs:
    """Queue a task's jobs, one for each base; it is shown to the `viewer` alone, if that is somebody.

    Raises `NameTaken`, `SpaceNotFound` where nothing of that base is indexed, `TooManyJobs`.
    """
    with database.transaction() as session:
        task = tasks.add(
            session,
            spaces.bases(session, question.base, viewer),
            name=question.name,
            viewer=viewer.submitter,
            examples=[asdict(example) for example in question.examples],
            count=len(question.examples),
            keep_examples=question.keep_examples,
            keep_adapter=question.keep_adapter,
            verify=question.verify,
            seed=question.seed,
            recipe=question.recipe.as_dict(),
        )
        for run in task.runs:
            model = session.get_one(Model, run.model_id)
            submissions.enqueue_alone(session, model, run.base_repo, quota, viewer)
        return task, tasks.jobs_of(session, [task])


def get(database: Database, task_id: int, viewer: Viewer) -> WithJobs:
    """Raises `TaskNotFound`."""
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        return task, tasks.jobs_of_one(session, task)


def page(database: Database, viewer: Viewer, *, before: int | None, limit: int) -> list[WithJobs]:
    """The newest first."""
    with database.transaction() as session:
        found = tasks.page(session, viewer, before=before, limit=limit)
        of_runs = tasks.jobs_of(session, found)
        there = [task for task in found if all(run.id in of_runs for run in task.runs)]  # one may be deleted just now
        return [(task, of_runs) for task in there]


def delete(database: Database, task_id: int, viewer: Viewer) -> WithJobs:
    """Forget it, and all that was made of it; a job that runs stores nothing. Returns what it was. Raises
    `TaskNotFound`.
    """
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        of_runs = tasks.jobs_of_one(session, task)
        session.expunge_all()
        tasks.remove(session, task)
        return task, of_runs


def adapter(database: Database, task_id: int, base: str | None, viewer: Viewer) -> Download:
    """The adapter that was trained on all examples of a task, on that base or on the first that has one.

    Raises `TaskNotFound`, `TaskNotDone`, and `ArchiveNotFound` where none was to be kept.
    """
    with database.transaction() as session:
        task = tasks.get(session, task_id, viewer)
        runs = [run for run in task.runs if base in (None, run.base_repo)]
        kept = archives.of_models(session, [run.model_id for run in runs])
    if not task.keep_adapter or not runs:
        raise ArchiveNotFound(
            f"No adapter of task {task_id} is kept{f' on {base}' if base else ''}: ask it with `keep_adapter`."
        )
    found = next((run for run in runs if run.model_id in kept), None)
    if found is None:
        raise TaskNotDone(f"Task {task_id} has no adapter yet: GET /v1/tasks/{task_id} tells how far its jobs are.")
    name = f"task-{task.name or task.id}-{found.base_repo.replace('/', '-')}.zip"
    return download(database, kept[found.model_id], name)


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


def leading(measured: Sequence[tuple[SpaceRow, np.ndarray]]) -> tuple[SpaceRow, np.ndarray]:
    """Of a run's spaces that of the most preferred feature, and its vectors (1 + h, d)."""
    order = {feature: place for place, feature in enumerate(PREFERRED)}
    return min(measured, key=lambda each: order.get(each[0].feature, len(order)))


def nearest(
    session: Session, homes: Mapping[str, SpaceRow], measured: Mapping[str, np.ndarray], count: int
) -> list[tuple[Model, float]]:
    """The public models nearest to a task in the geometry that searches use unasked, compared with all: for a worker,
    which has no index.
    """
    feature = next(name for name in (*PREFERRED, *measured) if name in measured)
    space, whole = homes[feature], measured[feature][0]
    fitted = geometries.default(session, space)
    geometry = fitted.geometry if fitted else Geometry()
    found: list[tuple[float, int]] = []
    for ids, vectors in vector_stream.stream(session, space.id, space.dimension, public=True):
        cosines = similarities(geometry, whole[None], vectors)[0]
        found = sorted([*found, *zip(cosines.tolist(), ids.tolist(), strict=True)], reverse=True)[:count]
    named = models.by_ids(session, {model_id for _, model_id in found})
    return [(named[model_id], cosine) for cosine, model_id in found if model_id in named]


def _rank(
    database: Database, index: Follower, run: TaskRun, space: SpaceRow, vectors: np.ndarray, options: Options
) -> TaskAnswer:
    whole, halves = vectors[0], vectors[1:]
    wide = replace(options, space_key=space.key, page=replace(options.page, k=max(options.page.k, CROWD)))
    answer = search.by_vector(database, index, whole.tolist(), wide)
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
